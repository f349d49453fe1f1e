"""Samples get the step that the job names."""

import os
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.producers import stepclock
from morphogen.producers.stepclock import StepClock


def clock() -> tuple[StepClock[str], list[tuple[str, int]]]:
    seen: list[tuple[str, int]] = []
    return StepClock(lambda sample, step: seen.append((sample, step))), seen


def labels(*names: tuple[int, int], until: int) -> list[int]:
    """The steps of the optimizer's steps up to `until`, where the job names its own (count, step) as it goes."""
    steps, seen = clock()
    for count in range(until + 1):
        if count:
            steps.sample(str(count), count)
        for _, step in (name for name in names if name[0] == count):
            steps.named(step, count)
    steps.flush()
    assert [sample for sample, _ in seen] == [str(count) for count in range(1, until + 1)]
    return [step for _, step in seen]


def test_the_first_log_names_the_samples_before_it() -> None:
    steps, seen = clock()
    steps.sample("a", 1)
    assert seen == []

    steps.named(501, 1)
    steps.sample("b", 2)
    steps.named(502, 2)

    assert seen == [("a", 501), ("b", 502)]


def test_logging_every_tenth_step_counts_the_steps_between() -> None:
    assert labels((10, 110), (20, 120), until=22) == list(range(101, 123))
    assert labels((1, 0), (11, 10), (21, 20), until=21) == list(range(21))
    assert labels((100, 99), (200, 199), until=200) == list(range(200))


def test_several_optimizer_steps_of_one_step_are_all_of_that_step() -> None:
    assert labels((4, 1), (8, 2), (12, 3), until=12) == [1] * 4 + [2] * 4 + [3] * 4
    assert labels((4, 101), (8, 102), until=8) == [101] * 4 + [102] * 4  # resumed: what the second one shows
    assert labels((100, 1), (200, 2), until=201) == [1] * 100 + [2] * 100 + [3]
    assert labels((0, 10), (4, 11), (5, 11), (6, 12), until=6) == [11] * 5 + [12]


def test_more_than_one_log_of_a_step_and_more_steps_than_the_optimizers() -> None:
    assert labels((1, 4), (1, 5), (1, 7), (2, 8), (2, 9), (3, 12), until=3) == [4, 8, 12]
    assert labels((10, 10), (10, 10), (20, 20), (20, 20), until=20) == list(range(1, 21))


def test_a_sample_that_comes_late_has_the_step_of_its_time() -> None:
    steps, seen = clock()
    steps.named(501, 1)
    steps.named(502, 2)
    steps.named(10, 3)  # the job went back
    steps.named(11, 4)
    for count in range(1, 6):
        steps.sample(str(count), count)
    assert len(seen) == 4
    steps.flush()

    assert seen == [("1", 501), ("2", 502), ("3", 10), ("4", 11), ("5", 12)]


def test_steps_that_jump_at_every_log_are_kept_apart_for_late_samples() -> None:
    steps, seen = clock()
    for count in range(1, 21):
        steps.named(1000 * count, count)
    for count in range(1, 21):
        steps.sample(str(count), count)

    assert [step for _, step in seen] == [1000 * count for count in range(1, 21)]


def test_a_log_that_says_no_step_names_none_where_others_do() -> None:
    steps, seen = clock()
    steps.named(1, 0, told=False)
    for count in range(1, 9):
        steps.sample(str(count), count)
        steps.named(count, count)
        steps.named(count + 1, count, told=False)

    assert [step for _, step in seen] == list(range(1, 9))


def test_where_no_step_is_ever_said_the_calls_are_counted() -> None:
    steps, seen = clock()
    for count in range(1, 9):
        steps.sample(str(count), count)
        if count % 4 == 0:
            steps.named(count // 4, count, told=False)

    assert [step for _, step in seen] == [1, 1, 1, 1, 2, 2, 2, 2]


def test_a_job_that_never_logs_gets_the_optimizers_own_count() -> None:
    assert labels(until=70) == list(range(1, 71))


def test_what_waits_for_a_name_is_bounded_and_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound, value in (("_MOST", 8), ("_ROOM", 8 * "x".__sizeof__())):
        monkeypatch.setattr(stepclock, bound, value)
        steps, seen = clock()
        for count in range(1, 21):
            steps.sample("x", count)
        assert seen == [("x", count) for count in range(1, 13)]
        steps.named(1, 20)
        assert [step for _, step in seen[12:]] == [1] * 8
        monkeypatch.undo()


def test_one_log_passes_on_so_many_and_the_next_sample_the_others() -> None:
    steps, seen = clock()
    for count in range(1, 201):
        steps.sample("x", count)
    steps.named(1, 200)
    assert len(seen) == 64
    steps.sample("x", 201)
    assert [step for _, step in seen] == [1] * 200


def test_who_hears_of_a_sample_may_log_and_settle() -> None:
    seen: list[int] = []

    def hears(sample: str, step: int) -> None:
        seen.append(step)
        steps.named(2, 1000)
        steps.flush()

    steps: StepClock[str] = StepClock(hears)
    for count in range(1, 1001):
        steps.sample("x", count)
    steps.flush()
    assert seen == [1, *[2] * 999]


def test_a_thread_that_is_emitting_holds_nobody_up() -> None:
    begun, go_on = threading.Event(), threading.Event()
    seen: list[int] = []

    def slow(sample: str, step: int) -> None:
        seen.append(step)
        begun.set()
        assert go_on.wait(10)

    steps: StepClock[str] = StepClock(slow)
    steps.named(1, 1)
    thread = threading.Thread(target=steps.sample, args=("x", 1))
    thread.start()
    assert begun.wait(10)
    steps.sample("x", 2)
    steps.named(2, 2)
    assert seen == [1]
    go_on.set()
    thread.join()
    assert seen == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_what_waits_in_a_parent_is_not_emitted_by_a_forked_child() -> None:
    steps, seen = clock()
    steps.sample("x", 1)
    steps.sample("x", 2)
    child = os.fork()
    if child == 0:
        steps.named(7, 2)
        steps.flush()
        os._exit(len(seen))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    steps.named(7, 2)
    steps.flush()
    assert [step for _, step in seen] == [6, 7]


def step_by_hand(names: Sequence[tuple[int, int]], count: int) -> int | None:
    """The step of a sample by every name so far, found anew; None where the names do not tell it."""
    at = next((i for i, (named, _) in enumerate(names) if named >= count), None)
    if at is None:
        return None
    there, step = names[at]
    if count == there or (at == 0 and step < there - 1):
        return step
    pair = at if at > 0 else next((i for i, (named, _) in enumerate(names) if named > there), None)
    if pair is None:
        return None
    (first, before), (last, after) = names[pair - 1], names[pair]
    return step - (there - count) if after - before == last - first else step


DEEDS = st.one_of(
    st.tuples(st.just("train"), st.integers(1, 4)),
    st.tuples(st.just("arrive"), st.integers(1, 6)),
    st.tuples(st.just("log on"), st.integers(-2, 5)),
    st.tuples(st.just("log count"), st.integers(-2, 3)),
    st.tuples(st.just("log"), st.just(0)),
    st.tuples(st.just("settle"), st.just(0)),
)


@given(st.lists(DEEDS, max_size=40), st.integers(0, 30))
def test_each_sample_has_the_step_that_the_names_say(deeds: list[tuple[str, int]], begin: int) -> None:
    steps, seen = clock()
    count = arrived = 0
    step = begin
    told: list[tuple[int, int]] = []
    counted: list[tuple[int, int]] = []
    settled: dict[int, Any] = {}
    for deed, number in [*deeds, ("arrive", 1000)]:
        before = len(seen)
        if deed == "train":
            count += number
        elif deed == "arrive":
            while arrived < count and number > 0:
                arrived, number = arrived + 1, number - 1
                steps.sample(str(arrived), arrived)
        elif deed == "log":
            step += 1
            counted.append((count, step))
            steps.named(step, count, told=False)
        elif deed == "settle":
            steps.flush()
        else:
            step = (step if deed == "log on" else begin + count) + number
            told.append((count, step))
            steps.named(step, count)
        names = told or counted
        for sample, given_step in seen[before:]:
            by_hand = step_by_hand(names, int(sample))
            if by_hand is None:
                assert deed == "settle"
                settled[int(sample)] = given_step
            else:
                assert given_step == by_hand, (sample, names)
        waits = len(seen) + 1
        assert waits > arrived or step_by_hand(names, waits) is None or (names[0][0] == names[-1][0] and waits <= count)
    steps.flush()
    assert [int(sample) for sample, _ in seen] == list(range(1, count + 1))
    if not told and not counted:
        assert settled == {n: n for n in settled}
