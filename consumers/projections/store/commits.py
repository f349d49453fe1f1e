"""One commit: the rows of a batch, the states and the positions of its projections, in one transaction."""

import contextlib
from collections.abc import Collection
from typing import Any

import duckdb

from ..parts import Parts
from .doors import Doors
from .duckfile import first_line
from .generation import Folded, Generation
from .width import Width

_WRONG_ROWS = (
    duckdb.ConversionException, duckdb.InvalidInputException, duckdb.BinderException, duckdb.OutOfRangeException,
)  # fmt: skip


class BadRows(Exception):
    """Rows of one projection do not fit its table."""

    def __init__(self, generation: Generation, reason: str) -> None:
        self.generation = generation
        self.reason = reason
        super().__init__(reason)


def write(con: Any, folded: Folded, generations: Collection[Generation], doors: Doors, width: Width) -> None:
    """Write a batch for those of its generations that still are in the file.

    Raises BadRows where rows do not fit, DuckDB's errors where there is no room; nothing is written then.
    """
    width.fit(con, sum(rows.num_rows for _, _, rows in folded.rows))
    con.begin()
    try:
        for generation, table, rows in folded.rows:
            if generation in folded.failed or generation not in generations:
                continue  # one that was dropped while it was built has no table any more
            try:
                doors.insert(con, generation, table, rows, width.now)
            except _WRONG_ROWS as error:
                reason = f"projection {generation.projection.name!r}, table {table!r}: {first_line(error)}"
                raise BadRows(generation, reason) from error
        move(con, folded, generations, doors)
        con.commit()
    except BaseException:
        with contextlib.suppress(duckdb.Error):
            con.rollback()
        raise


def move(con: Any, folded: Folded, generations: Collection[Generation], doors: Doors) -> None:
    """Write positions, states and errors, within the connection's transaction."""
    # Not those that were dropped: another may have got the same id.
    failed = {one: reason for one, reason in folded.failed.items() if one in generations}
    moved = [one for one in folded.generations if one in generations and one not in failed]
    states = {one: state for one, state in folded.states.items() if not isinstance(state, Parts)}
    doors.move(con, [one.id for one in moved if one not in states], folded.last)
    for one, state in folded.states.items():
        if one not in moved:
            continue
        if isinstance(state, Parts):
            _write_parts(con, one, state)
        else:
            con.execute(
                "UPDATE morphogen.positions SET seq = ?, state = ? WHERE id = ?",
                [folded.last, folded.encoded[one], one.id],
            )
    errors = failed | {one: None for one in moved if one.failed_before is not None}
    for one, reason in errors.items():
        con.execute("UPDATE morphogen.positions SET error = ? WHERE id = ?", [reason, one.id])


def _write_parts(con: Any, one: Generation, state: Parts) -> None:
    keys, values = list(state.written), list(state.written.values())
    if keys:
        con.execute("DELETE FROM morphogen.parts WHERE id = ? AND key IN (SELECT unnest(?))", [one.id, keys])
        con.execute(
            "INSERT INTO morphogen.parts SELECT ?, unnest(?::VARCHAR[]), unnest(?::BLOB[])", [one.id, keys, values]
        )
