"""Better, worse, or noise: against brute force, and against what is known of the tests."""

import random
import statistics

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from morphogen.producers.loops.sweep.compare import compare, interval, noise, rank_sum, ratios

numbers = st.floats(-1e6, 1e6, allow_nan=False)
samples = st.lists(numbers, min_size=1, max_size=7)


def test_single_measurements_compare_as_numbers() -> None:
    assert compare([2.0], [1.0]) == "better"
    assert compare([1.0], [2.0]) == "worse"
    assert compare([1.0], [1.0]) == "tie"
    assert compare([1.0], [2.0], maximize=False) == "better"


def test_few_repeats_must_all_beat_all_others() -> None:
    assert compare([3.0, 4.0], [1.0, 2.0]) == "better"
    assert compare([3.0, 1.5], [1.0, 2.0]) == "tie"


@given(a=samples, b=samples)
def test_comparing_the_other_way_round_says_the_opposite(a: list[float], b: list[float]) -> None:
    opposite = {"better": "worse", "worse": "better", "tie": "tie"}

    assert compare(b, a) == opposite[compare(a, b)]
    assert compare(a, b, maximize=False) == opposite[compare(a, b)]


@given(
    a=st.lists(numbers, min_size=2, max_size=6, unique=True), b=st.lists(numbers, min_size=2, max_size=6, unique=True)
)
def test_the_rank_sum_is_that_of_scipy(a: list[float], b: list[float]) -> None:
    if set(a) & set(b):
        return
    higher, lower = rank_sum(a, b)

    assert higher == pytest.approx(scipy.stats.mannwhitneyu(a, b, alternative="greater", method="exact").pvalue)
    assert lower == pytest.approx(scipy.stats.mannwhitneyu(a, b, alternative="less", method="exact").pvalue)


def test_the_rank_sum_of_many_is_near_that_of_scipy() -> None:
    chance = random.Random(1)
    a = [round(chance.gauss(0.4, 1), 1) for _ in range(40)]
    b = [round(chance.gauss(0.0, 1), 1) for _ in range(30)]

    found = scipy.stats.mannwhitneyu(a, b, alternative="greater", method="asymptotic").pvalue
    assert rank_sum(a, b)[0] == pytest.approx(found, abs=1e-6)


def test_noise_is_called_better_as_seldom_as_promised() -> None:
    chance = random.Random(2)

    def draw() -> list[float]:
        return [chance.gauss(1, 0.1) for _ in range(5)]

    said = [compare(draw(), draw()) for _ in range(2000)]

    assert said.count("better") / 2000 < 0.065
    assert said.count("worse") / 2000 < 0.065


@given(values=st.lists(numbers, min_size=1, max_size=40))
def test_an_interval_holds_its_median_and_lies_in_the_sample(values: list[float]) -> None:
    found = interval(values)

    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    assert found.median == statistics.median(values)
    assert found.level >= 0.95 or (found.low, found.high) == (min(values), max(values))


def test_an_interval_holds_the_true_median_as_often_as_it_says() -> None:
    chance = random.Random(3)
    held, level = 0, 0.0
    for _ in range(2000):
        found = interval([chance.expovariate(1) for _ in range(15)])
        held += found.low <= 0.6931471805599453 <= found.high
        level = found.level

    assert level >= 0.95
    assert held / 2000 == pytest.approx(level, abs=0.02)


def test_ratios_say_how_many_times_better() -> None:
    assert ratios([4.0, 6.0], [2.0, 2.0], maximize=True) == [2.0, 3.0]
    assert ratios([1.0, 2.0], [2.0, 2.0], maximize=False) == [2.0, 1.0]
    assert ratios([1.0, 0.0], [0.0, 2.0], maximize=True) == []


def test_noise_is_not_moved_by_one_jolt() -> None:
    steady = [1.0, 1.01, 0.99, 1.0, 1.005]

    assert noise([*steady, 50.0]) < 0.05
    assert noise([1.0]) == 0.0
