"""The pauses between two starts of publishing, for flows of every kind."""

from hypothesis import given
from hypothesis import strategies as st

from morphogen.bus.spool.pace import LINGER, QUIET, Pace

COST = 0.0004  # seconds of the processor that a start takes
MANY = 0.0081  # seconds: the longest pause where events are many, and a little
LONG = 0.5


def starts(rate: float, seconds: float, pace: Pace, began: float = 100.0, cost: float = COST) -> list[float]:
    """Return the pauses of a steady flow of `rate` records a second."""
    now, pauses = began, []
    while now < began + seconds:
        pauses.append(pace.next(now, int(rate * (now - began)), cost, patient=True))
        now += pauses[-1]
    return pauses


def test_many_events_are_published_at_least_every_8_ms() -> None:
    pace = Pace()
    pauses = starts(10_000, 2.0, pace)
    assert pauses[0] == LINGER
    assert max(pauses) <= MANY
    assert pace.due <= 102.0
    assert len(pauses) < 2.0 / LINGER / 3  # and not more often than that needs


def test_a_trickle_is_published_as_seldom_as_its_share_of_a_core_asks() -> None:
    pauses = starts(2100, 2.0, Pace())
    assert pauses[0] == LINGER
    assert all(abs(pause - COST / 0.003) < 1e-9 for pause in pauses[1:])
    assert max(starts(50, 3.0, Pace(), cost=0.1)) == LONG


def test_a_trainer_that_stands_still_for_some_milliseconds_does_not_make_a_trickle_of_many_events() -> None:
    pace, now, records = Pace(), 100.0, 0
    for number in range(500):
        records += 0 if number % 20 in (3, 4) else 80
        pause = pace.next(now, records, COST, patient=True)
        assert pause <= MANY
        now += 0.008


def test_events_that_somebody_may_wait_for_do_not_wait_for_numbers() -> None:
    pace, now = Pace(), 100.0
    for number in range(100):
        assert pace.next(now, number, COST, patient=False) <= MANY
        now += 0.03


def test_numbers_beside_events_wait_as_long_as_alone() -> None:
    pace = Pace()
    pace.next(100.0, 0, COST, patient=True)
    assert pace.next(100.02, 40, COST, patient=False) <= MANY  # more events may come
    assert abs(pace.due - 100.02 - COST / 0.003) < 1e-9  # but what numbers come is not worth a start before


def test_after_a_quiet_time_the_first_pause_is_short() -> None:
    pace = Pace()
    starts(100, 2.0, pace)
    assert pace.next(102.0 + LONG + 2 * QUIET, 10_000, COST, patient=True) == LINGER


@given(
    st.lists(
        st.tuples(
            st.floats(0, 2, allow_nan=False), st.integers(0, 10**6), st.floats(0, 10, allow_nan=False), st.booleans()
        )
    )
)
def test_a_pause_is_never_shorter_than_the_first_nor_longer_than_half_a_second(
    looks: list[tuple[float, int, float, bool]],
) -> None:
    pace, now, records = Pace(), 1.0, 0
    pauses = []
    for elapsed, more, cost, patient in looks:
        now, records = now + elapsed, records + more
        pauses.append(pace.next(now, records, cost, patient=patient))
    assert all(LINGER <= pause <= LONG for pause in pauses)
