"""Samples get the step that the job names."""

from hypothesis import given
from hypothesis import strategies as st

from morphogen.producers.stepclock import StepClock


def clock() -> tuple[StepClock[str], list[tuple[str, int]]]:
    seen: list[tuple[str, int]] = []
    return StepClock(lambda sample, step: seen.append((sample, step))), seen


def test_the_first_log_names_the_samples_before_it() -> None:
    steps, seen = clock()
    steps.sample("a", 1)
    assert seen == []

    steps.named(501, 1)
    steps.sample("b", 2)
    steps.named(502, 2)

    assert seen == [("a", 501), ("b", 502)]


def test_logging_every_tenth_step_keeps_the_distance() -> None:
    steps, seen = clock()
    for count in range(1, 13):
        steps.sample(str(count), count)
        if count % 10 == 0:
            steps.named(100 + count, count)

    assert [step for _, step in seen] == list(range(101, 113))


def test_a_sample_that_comes_late_has_the_step_of_its_time() -> None:
    steps, seen = clock()
    steps.named(501, 1)
    steps.named(502, 2)
    steps.named(10, 3)  # the job went back
    for count in range(1, 6):
        steps.sample(str(count), count)

    assert seen == [("1", 501), ("2", 502), ("3", 503), ("4", 11), ("5", 12)]


def test_steps_that_jump_at_every_log_are_kept_apart_for_late_samples() -> None:
    steps, seen = clock()
    for count in range(1, 21):
        steps.named(1000 * count, count)
    for count in range(2, 21):
        steps.sample(str(count), count)

    assert [step for _, step in seen] == [1000 * (count - 1) + 1 for count in range(2, 21)]


def test_a_job_that_never_logs_gets_the_optimizers_own_count() -> None:
    steps, seen = clock()
    for count in range(1, 70):
        steps.sample("x", count)
    steps.flush()

    assert [step for _, step in seen] == list(range(1, 70))


@given(st.lists(st.integers(0, 1000), max_size=20))
def test_no_sample_is_lost_or_doubled(logged_at: list[int]) -> None:
    steps, seen = clock()
    for count in range(1, 51):
        steps.sample(str(count), count)
        if count in logged_at:
            steps.named(count * 2, count)
    steps.flush()

    assert [sample for sample, _ in seen] == [str(count) for count in range(1, 51)]
