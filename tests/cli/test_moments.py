"""Times that are shown can be typed back."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from morphogen.cli.moments import moment
from morphogen.consumers.projections.sql.asof import parse_as_of
from morphogen.replay.span import Instant, parse_point
from morphogen.schemas.moments import exact

SECOND = 1_000_000_000


HOUR = 3600 * SECOND
CLOCKS_BACK = 1_792_890_000 * SECOND  # in Berlin, 2026-10-25


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_what_people_are_shown_is_local_time_as_they_type_it(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:

        @given(st.integers(10**18, 2**62) | st.integers(CLOCKS_BACK - 2 * HOUR, CLOCKS_BACK + 2 * HOUR))
        @example(CLOCKS_BACK - SECOND)
        @example(CLOCKS_BACK)
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
