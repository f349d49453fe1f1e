"""A machine whose neighbour comes and goes: what is told is its own speed."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from morphogen.kernels.blueprints.timing import PATIENCE, quietest


class Machine:
    """Runs work of known length; `slow` says for each piece in turn how many times longer it takes."""

    def __init__(self, slow: list[float]) -> None:
        self.slow = slow
        self.done = 0

    def work(self, took: float) -> Callable[[], float]:
        def act() -> float:
            self.done += 1
            return took * self.slow[(self.done - 1) % len(self.slow)]

        return act


TIMES = [1_000.0, 50_000.0, 7_777.0]


def test_a_quiet_machine_is_told_as_it_is_and_asked_no_more_than_it_must() -> None:
    machine = Machine([1.0])

    found, least = quietest([machine.work(took) for took in TIMES], machine.work(50.0), rounds=3)

    assert (found, least) == ([1000, 50000, 7777], 50.0)
    assert machine.done == 1 + 3 * 2 * len(TIMES)


@given(st.integers(1, 40), st.integers(8, 30), st.floats(1.3, 4.0))
def test_one_quiet_stretch_is_found_and_believed(noisy: int, quiet: int, slow: float) -> None:
    machine = Machine([slow] * noisy + [1.0] * quiet)

    found, least = quietest([machine.work(took) for took in TIMES], machine.work(50.0), rounds=8, least=50.0)

    assert (found, least) == ([1000, 50000, 7777], 50.0)


@given(st.floats(1.3, 4.0))
def test_where_it_is_never_quiet_the_time_is_scaled_and_the_search_ends(slow: float) -> None:
    machine = Machine([slow])

    found, _ = quietest([machine.work(took) for took in TIMES], machine.work(50.0), rounds=2, least=50.0)

    assert all(abs(got / took - 1) < 0.01 for got, took in zip(found, TIMES, strict=True))
    assert machine.done == 1 + 2 * PATIENCE * 2 * len(TIMES)


@given(st.lists(st.floats(1.0, 5.0), min_size=1, max_size=50))
def test_nothing_is_ever_told_as_longer_than_its_worst_or_shorter_than_a_part_of_its_best(slow: list[float]) -> None:
    machine = Machine(slow)

    found, least = quietest([machine.work(took) for took in TIMES], machine.work(50.0), rounds=3)

    assert least <= 50.0 * max(slow)
    assert all(took / 5 <= got <= took * 5 for got, took in zip(found, TIMES, strict=True))


def test_nothing_to_measure_takes_nothing() -> None:
    assert quietest([], lambda: 1.0, rounds=5) == ([], 1.0)
