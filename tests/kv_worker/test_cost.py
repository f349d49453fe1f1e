"""Restore or recompute: what was measured decides, and says so with its numbers."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.kv import Costs
from morphogen.consumers.kv.cost import Line

SPEEDS = st.floats(1e6, 1e11)
OVERHEADS = st.floats(1e-6, 0.1)


@given(OVERHEADS, SPEEDS, st.lists(st.floats(1e3, 1e9), min_size=2, max_size=20))
def test_a_line_finds_what_it_was_measured_from(overhead: float, speed: float, sizes: list[float]) -> None:
    line = Line()
    for size in sizes:
        line = line.observe(size, overhead + size / speed)

    for size in sizes:
        assert line.seconds(size) == pytest.approx(overhead + size / speed, rel=0.35)


@given(st.lists(st.tuples(st.floats(1, 1e9), st.floats(1e-9, 1e3)), max_size=20))
def test_whatever_was_measured_neither_overhead_nor_speed_is_nonsense(seen: list[tuple[float, float]]) -> None:
    for by_unit in (False, True):
        line = Line(by_unit=by_unit)
        for units, seconds in seen:
            line = line.observe(units, seconds)
        overhead, slope = line.fit
        assert overhead >= 0
        assert slope > 0
        assert math.isfinite(overhead + slope)
        assert line.seconds(2e9) >= line.seconds(1e9)


def test_measurements_that_make_no_sense_are_passed_over() -> None:
    line = Line().observe(1e6, 1e-3)

    for units, seconds in ((0, 1), (1, 0), (-1, 1), (1, math.nan), (math.inf, 1), (1, math.inf)):
        assert line.observe(units, seconds) == line


def test_a_long_context_is_restored_and_a_short_one_computed() -> None:
    costs = Costs()
    for tokens in (10, 100, 1000):
        costs = costs.prefilled(tokens, tokens / 10_000)
        costs = costs.restored("disk", tokens * 1000, 0.02 + tokens * 1000 / 1e9)

    long = costs.decide(tokens=3000, size=3_000_000, tier="disk")
    short = costs.decide(tokens=20, size=20_000, tier="disk")

    assert (long.choice, long.reason) == ("restore", "faster")
    assert (short.choice, short.reason) == ("recompute", "faster")
    assert long.recompute == pytest.approx(0.3, rel=0.05)
    assert long.restore == pytest.approx(0.023, rel=0.05)
    assert long.bandwidth == pytest.approx(1e9, rel=0.05)
    assert long.prefill_rate == pytest.approx(10_000, rel=0.05)
    edge = costs.break_even("disk", 1000)
    assert edge is not None
    assert 20 < edge < 3000
    assert costs.decide(tokens=int(edge) + 5, size=(int(edge) + 5) * 1000, tier="disk").choice == "restore"
    assert costs.decide(tokens=int(edge) - 5, size=(int(edge) - 5) * 1000, tier="disk").choice == "recompute"


def test_a_slow_tier_never_breaks_even_and_a_fast_one_always_does() -> None:
    costs = Costs().prefilled(1000, 0.1).restored("memory", 1_000_000, 1e-4)
    for size in (1_000_000, 2_000_000):
        costs = costs.restored("blobs", size, size / 1e6)

    assert costs.break_even("blobs", 1000) is None
    assert costs.break_even("memory", 1000) == 0.0


def test_bytes_that_are_not_to_be_had_are_computed_and_a_user_may_force_either() -> None:
    costs = Costs().prefilled(1000, 0.1).restored("memory", 1_000_000, 1e-4)

    gone = costs.decide(tokens=1000, size=1_000_000, tier="memory", available=False)
    forced = costs.decide(tokens=1000, size=1_000_000, tier="memory", force="recompute")

    assert (gone.choice, gone.reason) == ("recompute", "unavailable")
    assert (forced.choice, forced.reason) == ("recompute", "forced")


def test_the_newest_measurements_count_most() -> None:
    costs = Costs()
    for _ in range(5):
        costs = costs.prefilled(1000, 1.0)
    for _ in range(40):
        costs = costs.prefilled(1000, 0.1)

    assert costs.decide(tokens=1000, size=1, tier="memory").recompute == pytest.approx(0.1, rel=0.05)
