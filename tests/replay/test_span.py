"""What people type as places and speeds, and when a message is due."""

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.projections.sql.asof import parse_as_of
from morphogen.consumers.projections.sql.errors import SqlError
from morphogen.replay.errors import BadRange
from morphogen.replay.span import Instant, due, parse_point, parse_speed, pinned

moments = st.integers(0, 2**62)
speeds = st.floats(1e-3, 1e6)


@given(moments, st.lists(moments, min_size=2, max_size=20), speeds)
def test_messages_are_due_in_the_order_in_which_they_were_stored(first: int, stored: list[int], speed: float) -> None:
    stored.sort()

    schedule = [due(first, moment, speed) for moment in stored]

    assert schedule == sorted(schedule)
    assert all(moment >= 0 for moment in schedule)


@given(moments, st.integers(0, 2**50), speeds)
def test_a_replay_takes_the_time_that_it_took_divided_by_the_speed(first: int, span: int, speed: float) -> None:
    assert due(first, first + span, speed) == pytest.approx(span / 1e9 / speed)
    assert due(first, first + span, 2 * speed) == pytest.approx(due(first, first + span, speed) / 2)


@given(moments, moments)
def test_at_full_speed_everything_is_due_at_once(first: int, stored: int) -> None:
    assert due(first, stored, None) == 0


def test_a_clock_that_stepped_back_makes_nothing_due_before_the_start() -> None:
    assert due(1_000, 10, 1.0) == 0


@pytest.mark.parametrize(("text", "speed"), [("10x", 10.0), ("0.5X", 0.5), ("1", 1.0), ("max", None), (" MAX ", None)])
def test_speeds_are_read(text: str, speed: float | None) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["", "x", "0x", "-1x", "nan", "inf", "fast"])
def test_bad_speeds_are_told_with_what_to_write(text: str) -> None:
    with pytest.raises(BadRange, match="such as 10x"):
        parse_speed(text)


def test_places_are_sequences_times_and_ages() -> None:
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)

    assert parse_point("8123") == 8123
    assert parse_point("2026-11-20") == pinned(datetime(2026, 11, 20).astimezone(UTC))
    assert parse_point("2026-11-20T14:05:00+01:00") == pinned(datetime(2026, 11, 20, 13, 5, tzinfo=UTC))
    assert parse_point("-2h", now) == pinned(now - timedelta(hours=2))
    assert parse_point("-1.5d", now) == pinned(now - timedelta(hours=36))
    assert parse_point("5 minutes ago", now) == pinned(now - timedelta(minutes=5))


@given(st.integers(0, 2**62))
def test_a_time_in_nanoseconds_is_that_very_one_as_it_is_in_sql(ns: int) -> None:
    seconds, rest = divmod(ns, 10**9)
    text = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"

    assert parse_point(text) == Instant(ns, 1)
    assert parse_as_of(text)[1] == ns
    assert parse_point(f"{text[:-4]}Z") == Instant(ns // 1000 * 1000, 1000)


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_a_time_without_a_zone_is_local_as_it_is_in_sql(monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        point = parse_point("2026-11-20T14:05")
        assert isinstance(point, Instant)
        assert point.ns == parse_as_of("2026-11-20T14:05")[1]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250 ms ago", 0.25), ("-3MIN", 180), ("5 Minutes AGO", 300), ("1 hour ago", 3600), ("-2 weeks", 14 * 86400)],
)
def test_ages_are_read_alike_by_replay_and_by_sql(text: str, seconds: float) -> None:
    now = datetime.now(UTC)
    assert parse_point(text, now) == pinned(now - timedelta(seconds=seconds))
    ns = parse_as_of(text)[1]
    assert ns is not None
    assert 0 <= ns / 1e9 - (now.timestamp() - seconds) < 5


@pytest.mark.parametrize("text", ["5 months ago", "-2y", "3 parsecs ago", "-5", "m ago"])
def test_an_age_in_no_unit_of_time_is_refused_and_not_guessed(text: str) -> None:
    with pytest.raises(BadRange, match="no place in the log"):
        parse_point(text)
    with pytest.raises(SqlError, match="no sequence and no time"):
        parse_as_of(text)


def test_a_number_longer_than_python_reads_is_refused_in_one_line() -> None:
    with pytest.raises(BadRange, match="a number of 5000 digits is no place in the log"):
        parse_point("9" * 5000)
    for value in ("9" * 5000, 10**5000):
        with pytest.raises(SqlError, match="of so many digits is no sequence"):
            parse_as_of(value)


@pytest.mark.parametrize("text", ["-99999999999w", "-1e9d", "tomorrow"])
def test_a_place_that_no_log_has_is_told_in_one_line(text: str) -> None:
    with pytest.raises(BadRange, match="write a"):
        parse_point(text)


@pytest.mark.parametrize("text", ["", "yesterday", "-2", "2026-13-01", "-h", "1.5"])
def test_bad_places_are_told_with_what_to_write(text: str) -> None:
    with pytest.raises(BadRange, match="write a sequence"):
        parse_point(text)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))
def test_a_moment_keeps_its_microseconds(moment: datetime) -> None:
    point = pinned(moment)

    assert isinstance(point, Instant)
    assert datetime(1970, 1, 1) + timedelta(microseconds=point.ns // 1000) == moment
    assert point.ns % 1000 == 0
