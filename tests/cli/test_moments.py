"""Times that are shown can be typed back."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.cli.moments import exact, moment
from morphogen.consumers.projections.sql.asof import parse_as_of
from morphogen.replay.span import Instant, parse_point

SECOND = 1_000_000_000


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Bogota"])  # where no hour comes twice
def test_what_people_are_shown_is_local_time_as_they_type_it(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:

        @given(st.integers(10**18, 2**62))
        def shown(ns: int) -> None:
            assert parse_as_of(moment(ns))[1] == ns // SECOND * SECOND

        shown()
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.integers(0, 2**62))
def test_what_programs_are_shown_is_that_very_nanosecond(ns: int) -> None:
    assert parse_as_of(exact(ns))[1] == ns
    assert parse_point(exact(ns)) == Instant(ns, 1)
