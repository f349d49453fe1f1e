"""Axes, configurations and their order."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.producers.loops.sweep.errors import SpaceError
from morphogen.producers.loops.sweep.sampler import draw, grid, permuted, shuffled
from morphogen.producers.loops.sweep.space import Choice, Continuous, Space, Steps, axis_from, key_of


def values(axis: object) -> list[object]:
    assert isinstance(axis, Choice | Steps)
    return [axis.at(place) for place in range(axis.count)]


def test_a_range_of_whole_numbers_holds_both_ends() -> None:
    assert values(axis_from("a", 2, 5, None, False)) == [2, 3, 4, 5]
    assert values(axis_from("a", 1, 10, 4, False)) == [1, 5, 9]


def test_a_range_of_fractions_ends_where_it_says_although_tenths_are_not_binary() -> None:
    assert values(axis_from("a", 0, 1.0, 0.1, False)) == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def test_a_logarithmic_range_doubles_or_multiplies_by_its_step() -> None:
    assert values(axis_from("a", 16, 300, None, True)) == [16, 32, 64, 128, 256]
    assert values(axis_from("a", 0.001, 1, 10, True)) == [0.001, 0.01, 0.1, 1.0]


def test_a_range_of_fractions_without_a_step_is_continuous() -> None:
    axis = axis_from("a", 0.001, 10.0, None, True)

    assert isinstance(axis, Continuous)
    assert axis.within(0.5) == pytest.approx(0.1)
    assert (axis.within(0), axis.within(1)) == (0.001, 10.0)


@pytest.mark.parametrize(
    ("low", "high", "step", "log", "says"),
    [
        (3, 1, None, False, "is empty"),
        (0, 8, None, True, "begins above 0"),
        (1, 8, 0, False, "must be above 0"),
        (1, 8, 1, True, "must be above 1"),
        (float("nan"), 1, None, False, "finite numbers"),
        ("a", "b", None, False, "finite numbers"),
        (True, 3, None, False, "finite numbers"),
    ],
)
def test_a_range_that_cannot_be_is_refused(low: object, high: object, step: object, log: bool, says: str) -> None:
    with pytest.raises(SpaceError, match=says):
        axis_from("a", low, high, step, log)


def test_the_last_axis_turns_fastest() -> None:
    space = Space((Choice("a", (1, 2)), Choice("b", ("x", "y", None))))

    found = [space.at(number) for number in range(space.size or 0)]

    assert found == [{"a": a, "b": b} for a in (1, 2) for b in ("x", "y", None)]


def test_ten_thousand_configurations_are_not_unfolded() -> None:
    space = Space(tuple(Choice(name, tuple(range(10))) for name in "abcd"))
    began = time.thread_time()  # of this thread alone: the machine may be busy

    sampler = grid(space)
    first = [sampler.propose((), (), 0) for _ in range(3)]

    assert space.size == 10_000
    assert first == [{"a": 0, "b": 0, "c": 0, "d": number} for number in range(3)]
    assert time.thread_time() - began < 0.05


def test_a_space_of_a_billion_can_be_drawn_from_at_random_without_repeats() -> None:
    space = Space(tuple(Choice(name, tuple(range(1000))) for name in "abc"))
    sampler = shuffled(space, 1)

    keys = {key_of(config) for config in (sampler.propose((), (), 0) for _ in range(500)) if config is not None}

    assert len(keys) == 500


@given(size=st.integers(1, 3000), seed=st.integers(0, 5))
def test_a_permutation_holds_every_number_once(size: int, seed: int) -> None:
    assert sorted(permuted(size, seed)) == list(range(size))


def test_another_seed_is_another_order() -> None:
    orders = {tuple(permuted(50, seed)) for seed in range(20)}

    assert len(orders) == 20


def test_a_permutation_sends_each_number_everywhere() -> None:
    firsts = [next(permuted(8, seed)) for seed in range(4000)]

    assert all(abs(firsts.count(number) - 500) < 110 for number in range(8))  # five standard deviations


def test_a_draw_from_a_continuous_space_depends_on_seed_and_number_alone() -> None:
    space = Space((Continuous("x", 0.0, 1.0), Choice("b", ("x", "y"))))

    assert draw(space, 1, 7) == draw(space, 1, 7)
    assert len({draw(space, 1, number)["x"] for number in range(100)}) == 100


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


@given(config=st.dictionaries(st.text(min_size=1, max_size=3), json_values, min_size=1, max_size=4))
def test_a_key_does_not_depend_on_the_order_of_the_parameters(config: dict[str, object]) -> None:
    for order in itertools.islice(itertools.permutations(config), 4):
        assert key_of({name: config[name] for name in order}) == key_of(config)


def test_different_kinds_of_one_have_different_keys() -> None:
    assert len({key_of({"a": value}) for value in (1, 1.5, "1", True, None, [1])}) == 6
