"""Tables for people: of very many rows some are printed, and how many there are is said."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from rich.table import Table

from .saying import cell, console, echo

SHOWN = 1000  # rows of a table on standard output: a layout takes a millisecond for each

_T = TypeVar("_T")


def print_rows(
    table: Table, rows: Sequence[_T], cells: Callable[[_T], Iterable[object]], *, newest_last: bool = False
) -> None:
    """Print a table that has only columns with these rows; `cells` gives what stands in one, None for nothing.

    Of more than SHOWN rows the first are printed, with `newest_last` the last, and stderr tells how many there are.
    """
    for row in rows[-SHOWN:] if newest_last else rows[:SHOWN]:
        table.add_row(*("" if one is None else cell(one) for one in cells(row)))
    console().print(table)
    if len(rows) > SHOWN:
        end = "last" if newest_last else "first"
        echo(f"{len(rows):,} rows, the {end} {SHOWN:,} shown (--json shows all)", err=True)
