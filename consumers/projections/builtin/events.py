"""`events`: everything in the log, one row an event, the body as VARIANT.

Where another projection's tables give a body back exactly (numbers, layer health, log lines), it is not stored a
second time: the view reads it from there, and only when `body` is asked for. Ask for it together with a `type`,
and better with a `run` too: otherwise all rows of those tables are gathered.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from morphogen.bus.bodies import reference

from ..fold.arrays import Gaps, Words, from_numpy, strings, text
from ..fold.batch import UNREADABLE, Batch
from ..fold.body_json import raw_to_json, to_json
from ..fold.rows import Columns
from ..projection import FRONT, Projection, Rows

if TYPE_CHECKING:
    import numpy.typing as npt


_OURS = f"{__name__.partition('.')[0]}.schemas."
_ENVELOPE = "lane VARCHAR, n BIGINT, type VARCHAR, version INTEGER, cause VARCHAR"


class Events(Projection, name="events", version=4, types=("*",)):
    """Every event; unknown types with the body as written, unreadable messages as type '$unreadable'.

    `unknown_events` counts what no class could be made of: types and versions that are not known, and bodies that do not fit.
    `events_without_body` lists those whose body lies in a blob that could not be had.
    """

    tables = {
        "_event_rows": f"{_ENVELOPE}, body VARIANT",
        "_held_rows": _ENVELOPE,  # events whose bodies other tables hold: a VARIANT costs most where there is none
        "_misfit_rows": "type VARCHAR, version INTEGER",  # events of a type and version of ours whose body does not fit it
        "_bodiless_rows": "lane VARCHAR, n BIGINT, type VARCHAR, version INTEGER, blob VARCHAR",
    }

    def __init__(self, others: tuple[Projection, ...]) -> None:
        self.holders = tuple(other for other in others if other.bodies)
        known = _known()
        self.views = {
            "events": self._view(),
            "unknown_events": f"""
                SELECT type, version, count(*) AS events, min(seq) AS first_seq, max(seq) AS last_seq
                FROM (
                    SELECT type, version, seq FROM _event_rows WHERE NOT list_contains({known}, type || '@' || version)
                    UNION ALL
                    SELECT type, version, seq FROM _misfit_rows WHERE list_contains({known}, type || '@' || version)
                ) GROUP BY ALL
            """,
            "events_without_body": """
                SELECT seq, idx, lane || '.' || n AS id, type, version, run, attempt, rank, step, time, blob
                FROM _bodiless_rows
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
        own, others = np.flatnonzero(~held), np.flatnonzero(held)
        rows, found = [], {}
        if len(own):
            raws = batch.bodies(own).raws()
            bodies = text([raw_to_json(raw) for raw in raws])
            rows.append(Columns({**_envelopes(batch, own), "body": bodies}))
            if blobs := {at: blob for at, raw in zip(own.tolist(), raws, strict=True) if (blob := reference(raw))}:
                columns = _envelopes(batch, np.fromiter(blobs, np.intp))
                kept = {name: columns[name] for name in self.columns["_bodiless_rows"] if name in columns}
                found["_bodiless_rows"] = Columns({**kept, "blob": strings(list(blobs.values()))})
        if batch.unreadable:
            rows.append(_unreadable(batch))
        if rows:
            found["_event_rows"] = rows[0] if len(rows) == 1 else _joined(rows, self.columns["_event_rows"])
        if len(others):
            found["_held_rows"] = Columns(_envelopes(batch, others))
        if len(misfits := _misfits(batch, own)):
            columns = _envelopes(batch, misfits)
            found["_misfit_rows"] = Columns({name: columns[name] for name in self.columns["_misfit_rows"]})
        return found

    def _view(self) -> str:
        """Return the view over rows and held bodies.

        Its form matters. DuckDB leaves a left join out where nothing of its right side is asked for, if that side is
        one aggregation by the columns joined on; and a filter on `type` or `run` reaches through it, so that a
        query for one type gathers that type alone. Bodies are made after the join, of the rows that are left.
        """
        front = ", ".join([*FRONT, "lane", "n", "type", "version", "cause"])
        every = f"""(
            SELECT {front}, body FROM _event_rows UNION ALL SELECT {front}, NULL::VARIANT AS body FROM _held_rows
        )"""
        columns = "e.seq, e.idx, e.lane || '.' || e.n AS id, e.type, version, e.run, attempt, rank, step, time, cause"
        found = [(kind, body) for holder in self.holders for kind, body in holder.bodies.items()]
        if not found:
            return f"SELECT {columns}, body FROM {every} e"
        branches, makers = [], ["body"]
        for number, (kind, body) in enumerate(found):
            others = [f"{body.gather if i == number else 'NULL'} AS held_{i}" for i in range(len(found))]
            branches.append(
                f"SELECT seq, idx, run, '{kind}' AS type, {', '.join(others)} FROM {body.table} GROUP BY seq, idx, run"
            )
            made = re.sub(r"\bheld\b", f"held_{number}", body.body)
            makers.append(f"CASE WHEN held_{number} IS NULL THEN NULL ELSE {made}::VARIANT END")
        kept = ", ".join(f"any_value(held_{i}) AS held_{i}" for i in range(len(found)))
        return f"""
            SELECT {columns}, coalesce({", ".join(makers)}) AS body
            FROM {every} e LEFT JOIN (
                SELECT seq, idx, run, type, {kept} FROM ({" UNION ALL ".join(branches)}) GROUP BY seq, idx, run, type
            ) h ON h.seq = e.seq AND h.idx = e.idx AND h.run = e.run AND h.type = e.type
        """


def _envelopes(batch: Batch, at: "npt.NDArray[np.intp]") -> dict[str, Any]:
    """Return all columns but the body, of the events at these positions."""
    columns: dict[str, Any] = {
        "seq": batch.seq,
        "idx": batch.idx,
        "run": batch.run,
        "attempt": batch.attempt,
        "rank": batch.rank,
        "step": batch.step,
        "time": batch.time,
        "lane": batch.lane,
        "n": batch.n,
        "type": batch.kinds,
        "version": batch.version,
        "cause": batch.cause,
    }
    return columns if len(at) == len(batch) else {name: column[at] for name, column in columns.items()}


def _misfits(batch: Batch, at: "npt.NDArray[np.intp]") -> "npt.NDArray[np.intp]":
    """Return which of the events at these positions are of a known type and version, and have a body that does not fit.

    Of our own types, that is: which of the users' are known differs from process to process, and rows must not.
    """
    from morphogen.schemas import Unknown, decode_event, event_class

    found = [np.empty(0, np.intp)]
    codes, versions = batch.kinds.codes, batch.version
    for code, kind in enumerate(batch.kinds.words):
        cls = event_class(kind)
        if cls is None or not cls.__module__.startswith(_OURS):
            continue
        some = at[(codes[at] == code) & (versions[at] >= 1) & (versions[at] <= cls.version)]
        if len(some) == np.count_nonzero(codes == code):
            fits = np.isin(some, batch.of(kind).positions)  # decoded once, for whoever else folds them
        else:
            pairs = zip(versions[some].tolist(), batch.bodies(some).raws(), strict=True)
            fits = np.array([not isinstance(decode_event(kind, *pair), Unknown) for pair in pairs], np.bool_)
        found.append(some[~fits])
    return np.sort(np.concatenate(found))


def _known() -> str:
    from morphogen.schemas import event_classes

    pairs = {f"'{cls.type}@{version}'" for cls in event_classes() for version in range(1, cls.version + 1)}
    return "[" + ", ".join(sorted(pairs)) + "]"


def _unreadable(batch: Batch) -> Columns:
    found = batch.unreadable
    nowhere = Gaps(np.zeros(len(found), np.int64), np.ones(len(found), np.bool_))
    none = Words(np.full(len(found), -1, np.int32), [])
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
            "step": nowhere,
            "time": np.array([one.stored for one in found], np.int64),
            "lane": none,
            "n": nowhere,
            "type": strings([UNREADABLE] * len(found)),
            "version": np.zeros(len(found), np.int64),
            "cause": none,
            "body": text(bodies),
        }
    )


def _joined(rows: list[Columns], types: Mapping[str, str]) -> Columns:
    """Lay rows end to end, in the order of the log, as a batch without cuts would have them."""
    tables = [one.arrow(types) for one in rows]
    places = [(np.asarray(one["seq"]), np.asarray(one["idx"])) for one in rows]
    seq, idx = (np.concatenate(parts) for parts in zip(*places, strict=True))
    plain = [table.cast(pa.schema([(f.name, _plain(f.type)) for f in table.schema])) for table in tables]
    order = from_numpy(np.lexsort((idx, seq)), pa.int64())
    together = pa.concat_tables(plain).combine_chunks().take(order)
    return Columns({name: together[name] for name in together.column_names})


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.large_string() if pa.types.is_dictionary(kind) or pa.types.is_string(kind) else kind
