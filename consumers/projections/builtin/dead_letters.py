"""`dead_letters`: commands that nobody could do, with the reason and all that is needed to try again."""

from collections.abc import Iterable
from typing import Any

from morphogen.schemas import DeadLetter

from ..fold.batch import Entry
from ..projection import Projection


class DeadLetters(Projection, name="dead_letters", version=1, types=("dead.letter", "outcome.resolved")):
    """Dead letters and what a person did with them: `status` is dead, retried or dropped."""

    tables = {
        "_dead_letters": "command_id VARCHAR, target VARCHAR, name VARCHAR, reason VARCHAR, deliveries INTEGER, "
        "args VARIANT, issued TIMESTAMP_NS",
        "_dead_resolved": "command_id VARCHAR, action VARCHAR, retried_as VARCHAR, by VARCHAR",
    }
    views = {
        "dead_letters": """
            WITH letters AS (
                SELECT * FROM _dead_letters
                QUALIFY row_number() OVER (PARTITION BY command_id ORDER BY seq DESC, idx DESC) = 1
            ), resolved AS (
                SELECT * FROM _dead_resolved
                QUALIFY row_number() OVER (PARTITION BY command_id ORDER BY seq DESC, idx DESC) = 1
            )
            SELECT d.command_id, coalesce(r.action, 'dead') AS status, d.target, d.name, d.args, d.reason, d.deliveries,
                   d.run, d.issued, d.time AS died, r.retried_as, r.by AS resolved_by, r.time AS resolved, d.seq, d.idx
            FROM letters d LEFT JOIN resolved r USING (command_id)
        """
    }

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield one row."""
        body = event.body
        if isinstance(body, DeadLetter):
            issued = None if body.issued is None else min(max(body.issued, 0), 2**63 - 2)
            deliveries = min(max(body.deliveries, 0), 2**31 - 1)
            yield "_dead_letters", (
                body.command_id, body.target, body.name, body.reason, deliveries, body.args, issued,
            )  # fmt: skip
        else:
            yield "_dead_resolved", (body.command_id, body.action, body.retried_as, body.by)
