"""`commands`: one row a command: who was asked for what, and what became of it."""

from collections.abc import Iterable
from typing import Any

from morphogen.schemas import CommandAccepted, CommandIssued

from ..fold.batch import Entry
from ..projection import Projection


class Commands(
    Projection, name="commands", version=1, types=("command.issued", "outcome.accepted", "outcome.finished")
):
    """Commands as issued, each delivery, and the state of each command over them.

    A command is issued, accepted (a worker has it), failed (its last delivery was; it may be tried again), done,
    dead (given up), retried or dropped (by a person, from the dead letters).
    """

    tables = {
        "_commands_issued": "command_id VARCHAR, target VARCHAR, name VARCHAR, args VARIANT, issuer VARCHAR, "
        "max_deliveries INTEGER, expires TIMESTAMP_NS",
        "_commands_accepted": "command_id VARCHAR, worker VARCHAR, delivery INTEGER",
        "_commands_finished": "command_id VARCHAR, worker VARCHAR, delivery INTEGER, ok BOOLEAN, result VARIANT, "
        "error VARCHAR, duration DOUBLE",
    }
    views = {
        "commands": """
            WITH issued AS (
                SELECT * FROM _commands_issued
                QUALIFY row_number() OVER (PARTITION BY command_id ORDER BY seq, idx) = 1
            ), taken AS (
                SELECT command_id, max(delivery) AS delivery, min(time) AS accepted
                FROM _commands_accepted GROUP BY command_id
            ), ended AS (
                SELECT * FROM _commands_finished
                QUALIFY row_number() OVER (PARTITION BY command_id ORDER BY ok DESC, delivery DESC, seq DESC) = 1
            ), dead AS (
                SELECT command_id, status, reason FROM dead_letters
            )
            SELECT i.command_id, i.target, i.name, i.args, i.run, i.issuer, i.time AS issued, taken.accepted,
                   CASE WHEN ended.ok THEN 'done'
                        WHEN dead.command_id IS NOT NULL THEN dead.status
                        WHEN taken.delivery > coalesce(ended.delivery, 0) THEN 'accepted'
                        WHEN ended.command_id IS NOT NULL THEN 'failed'
                        ELSE 'issued' END AS status,
                   greatest(coalesce(taken.delivery, 0), coalesce(ended.delivery, 0)) AS deliveries,
                   ended.result, coalesce(ended.error, dead.reason) AS error, ended.time AS finished, ended.duration,
                   ended.worker, i.max_deliveries, i.expires, i.seq, i.idx
            FROM issued i LEFT JOIN taken USING (command_id) LEFT JOIN ended USING (command_id)
            LEFT JOIN dead USING (command_id)
        """
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield one row."""
        body = event.body
        if isinstance(body, CommandIssued):
            yield "_commands_issued", (
                body.command_id, body.target, body.name, body.args, body.issuer, _int32(body.max_deliveries),
                None if body.expires is None else min(max(body.expires, 0), 2**63 - 2),
            )  # fmt: skip
        elif isinstance(body, CommandAccepted):
            yield "_commands_accepted", (body.command_id, body.worker, _int32(body.delivery))
        else:
            yield "_commands_finished", (
                body.command_id, body.worker, _int32(body.delivery), body.ok, body.result, body.error, body.duration,
            )  # fmt: skip


def _int32(value: int) -> int:
    return min(max(value, -(2**31)), 2**31 - 1)
