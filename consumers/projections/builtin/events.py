"""`events`: everything in the log, one row an event, the body as VARIANT.

Where another projection's tables give a body back exactly (numbers, layer health, log lines), it is not stored a
second time: the view reads it from there, and only when `body` is asked for. Ask for it together with a `type`,
and better with a `run` too: otherwise all rows of those tables are gathered.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ..batch import UNREADABLE, Batch
from ..body_json import raw_to_json, to_json
from ..projection import Projection, Rows
from ..rows import Columns, strings

if TYPE_CHECKING:
    import numpy.typing as npt


class Events(Projection, name="events", version=1, types=("*",)):
    """Every event; unknown types with the body as written, unreadable messages as type '$unreadable'."""

    tables = {
        "_events_own": "lane VARCHAR, n BIGINT, type VARCHAR, version INTEGER, cause VARCHAR, body VARIANT",
        "_events_held": "lane VARCHAR, n BIGINT, type VARCHAR, version INTEGER, cause VARCHAR",
    }

    def __init__(self, others: tuple[Projection, ...]) -> None:
        self.holders = tuple(other for other in others if other.bodies)
        self.views = {
            "events": self._view(),
            "unknown_events": f"""
                SELECT type, version, count(*) AS events, min(seq) AS first_seq, max(seq) AS last_seq
                FROM _events_own WHERE NOT list_contains({_known()}, type || '@' || version) GROUP BY ALL
            """,
        }

    def depends(self) -> tuple[str, ...]:
        """Return the types whose bodies are held elsewhere, and by whom."""
        return tuple(sorted(f"{kind} in {holder.name}" for holder in self.holders for kind in holder.bodies))

    def fold(self, batch: Batch) -> Rows:
        """Return a row for each event, and for each message that is no frame."""
        held = np.zeros(len(batch), np.bool_)
        for holder in self.holders:
            held[holder.holds(batch)] = True
        rows: dict[str, Columns] = {}
        if held.any():
            rows["_events_held"] = Columns(_envelopes(batch, held))
        own = [Columns({**_envelopes(batch, ~held), "body": _bodies(batch, ~held)})] if not held.all() else []
        if batch.unreadable:
            own.append(_unreadable(batch))
        if own:
            rows["_events_own"] = own[0] if len(own) == 1 else _joined(own)
        return rows

    def _view(self) -> str:
        """One branch for bodies stored here, and one for each type that is held elsewhere.

        A query for one type reads one branch. Bodies are gathered before the join, and made after it: DuckDB leaves the
        join out where no body is asked for, and makes those only that are.
        """
        columns = "type, version, run, attempt, rank, step, time, cause"
        place = "e.seq, e.idx, e.lane || '.' || e.n AS id"
        branches = [f"SELECT {place}, {columns}, body FROM _events_own e"]
        for kind, held in ((kind, held) for holder in self.holders for kind, held in holder.bodies.items()):
            branches.append(f"""
                SELECT {place}, {columns}, CASE WHEN rows IS NULL THEN NULL ELSE {held.body}::VARIANT END AS body
                FROM _events_held e LEFT JOIN (
                    SELECT seq, idx, run, {held.gather} AS rows FROM {held.table} GROUP BY seq, idx, run
                ) USING (seq, idx, run) WHERE type = '{kind}'
            """)
        return " UNION ALL ".join(branches)


def _envelopes(batch: Batch, mask: "npt.NDArray[np.bool_]") -> dict[str, Any]:
    """Return the envelopes of the events in a mask, as columns."""
    whole = bool(mask.all())
    positions = np.flatnonzero(mask)
    at = pa.array(positions)

    def take(array: Any) -> Any:
        return array if whole else array[positions] if isinstance(array, np.ndarray) else array.take(at)

    names = ("seq", "idx", "run", "attempt", "rank", "step", "time", "lane", "n", "type", "version")
    arrays = (
        batch.seq, batch.idx, batch.run, batch.attempt, batch.rank, batch.step, batch.time, batch.lane, batch.n,
        batch.kinds, batch.version,
    )  # fmt: skip
    causes = [record.cause for record in batch.records]
    cause = pa.array(causes, pa.string()) if any(causes) else pa.nulls(len(causes), pa.string())
    return {**{name: take(array) for name, array in zip(names, arrays, strict=True)}, "cause": take(cause)}


def _bodies(batch: Batch, mask: "npt.NDArray[np.bool_]") -> pa.Array:
    return pa.array([raw_to_json(batch.records[at].body) for at in np.flatnonzero(mask).tolist()], pa.string())


def _known() -> str:
    from morphogen.schemas import event_classes

    pairs = {f"'{cls.type}@{version}'" for cls in event_classes() for version in range(1, cls.version + 1)}
    return "[" + ", ".join(sorted(pairs)) + "]"


def _unreadable(batch: Batch) -> Columns:
    found = batch.unreadable
    none = pa.nulls(len(found), pa.string())
    bodies = [
        to_json({"reason": one.reason, "subject": one.subject, "bytes": one.size, "start": one.raw}) for one in found
    ]
    return Columns(
        {
            "seq": np.array([one.seq for one in found], np.int64),
            "idx": np.zeros(len(found), np.int32),
            "run": strings([""] * len(found)),
            "attempt": np.zeros(len(found), np.int64),
            "rank": np.zeros(len(found), np.int64),
            "step": pa.nulls(len(found), pa.int64()),
            "time": pa.array([one.stored for one in found], pa.int64()).cast(pa.timestamp("ns")),
            "lane": none,
            "n": pa.nulls(len(found), pa.int64()),
            "type": strings([UNREADABLE] * len(found)),
            "version": np.zeros(len(found), np.int64),
            "cause": none,
            "body": pa.array(bodies, pa.string()),
        }
    )


def _joined(rows: list[Columns]) -> Columns:
    """Lay rows end to end; they are put in the order of the log, as a batch without cuts would have them."""
    columns: dict[str, Any] = {}
    for name in rows[0].columns:
        pieces = [one[name] if isinstance(one[name], pa.Array) else pa.array(one[name]) for one in rows]
        plain = [p.cast(pa.string()) if isinstance(p, pa.DictionaryArray) else p for p in pieces]
        columns[name] = pa.concat_arrays(plain)
    order = pa.array(np.lexsort((np.asarray(columns["idx"]), np.asarray(columns["seq"]))))
    return Columns({name: column.take(order) for name, column in columns.items()})
