"""Of very many rows a table shows some, and tells how many there are."""

import contextlib
import io

from hypothesis import example, given
from hypothesis import strategies as st
from rich.table import Table

from morphogen.cli.tables import SHOWN, print_rows


@given(count=st.integers(0, 20) | st.integers(SHOWN - 1, SHOWN + 3), newest_last=st.booleans())
@example(count=SHOWN, newest_last=True)
@example(count=3 * SHOWN, newest_last=True)
@example(count=3 * SHOWN, newest_last=False)
def test_the_newest_rows_are_shown_in_their_order_and_the_rest_is_told(count: int, newest_last: bool) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        print_rows(Table("number", "none"), range(count), lambda number: (number, None), newest_last=newest_last)

    numbers = list(range(count))
    assert [int(word) for word in out.getvalue().split() if word.isdecimal()] == (
        numbers[-SHOWN:] if newest_last else numbers[:SHOWN]
    )
    end = "last" if newest_last else "first"
    told = f"{count:,} rows, the {end} {SHOWN:,} shown (--json shows all)\n" if count > SHOWN else ""
    assert err.getvalue() == told
