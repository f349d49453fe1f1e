"""The circuit breaker opens, rests, tries once, and closes; retries pause and tell the truth; losses are judged."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.executor.breaker import CLOSED, HALF_OPEN, OPEN, Breaker
from morphogen.consumers.executor.errors import LoadError
from morphogen.consumers.executor.governor import trouble
from morphogen.consumers.executor.retry import retried


def test_it_opens_after_so_many_failures_in_a_row_and_a_success_begins_the_count_anew() -> None:
    breaker = Breaker("b", limit=2).failed(0).succeeded().failed(1)
    assert breaker.state == CLOSED
    assert breaker.failed(2).state == OPEN
    assert not breaker.failed(2).lets_through


def test_it_lets_one_try_through_after_its_rest_and_that_one_decides() -> None:
    opened = Breaker("b", limit=1, rest=3).failed(4)
    assert opened.at(6).state == OPEN
    rested = opened.at(7)
    assert rested.state == HALF_OPEN
    assert rested.lets_through
    trying = rested.tried()
    assert not trying.lets_through
    assert trying.succeeded().state == CLOSED
    again = trying.failed(7)
    assert (again.state, again.opened) == (OPEN, 7)


def test_it_asks_for_as_many_successes_as_it_needs() -> None:
    breaker = Breaker("b", limit=1, rest=1, needed=2).failed(0).at(1).tried().succeeded()
    assert breaker.state == HALF_OPEN
    assert breaker.tried().succeeded().state == CLOSED


def test_the_success_of_an_old_try_does_not_close_an_open_one() -> None:
    assert Breaker("b", limit=1).failed(0).succeeded().state == OPEN


@given(st.lists(st.sampled_from(["fail", "succeed", "wait", "try"]), max_size=60))
def test_it_is_never_closed_with_more_failures_in_a_row_than_it_bears(story: list[str]) -> None:
    breaker, epoch = Breaker("b", limit=3, rest=2), 0
    for what in story:
        before = breaker
        match what:
            case "fail":
                breaker = breaker.failed(epoch)
            case "succeed":
                breaker = breaker.succeeded()
            case "try":
                breaker = breaker.tried()
            case _:
                epoch += 1
                breaker = breaker.at(epoch)
        assert breaker.state != CLOSED or breaker.failures < 3
        assert (before.state, breaker.state) not in {(CLOSED, HALF_OPEN), (OPEN, CLOSED)}


def test_a_retry_that_succeeds_returns_its_result_and_what_failed_before() -> None:
    slept: list[float] = []
    tries = iter([LoadError("one"), LoadError("two"), 7])

    def operation() -> int:
        found = next(tries)
        if isinstance(found, LoadError):
            raise found
        return found

    tried = retried(operation, retries=3, backoff=(0.1, 0.4), sleep=slept.append)
    assert tried.result == 7
    assert [str(error) for error in tried.failures] == ["one", "two"]
    assert slept == [0.1, 0.4]


@pytest.mark.parametrize(("lasting", "tries"), [(False, 3), (True, 1)])
def test_a_failure_that_lasts_is_not_tried_again_and_none_is_called_recovered(lasting: bool, tries: int) -> None:
    def operation() -> int:
        raise LoadError("no", lasting=lasting)

    tried = retried(operation, retries=2, backoff=(0.0,), sleep=lambda seconds: None)
    assert tried.result is None
    assert len(tried.failures) == tries


def test_other_errors_are_not_swallowed_by_a_retry() -> None:
    def operation() -> int:
        raise KeyError("x")

    with pytest.raises(KeyError):
        retried(operation, retries=2, backoff=(), sleep=lambda seconds: None)


def test_a_loss_that_is_not_finite_is_always_trouble_and_one_that_was_not_measured_never() -> None:
    assert trouble(math.nan, (), sigma=6, multiplier=3) == ("nonfinite", None)
    assert trouble(math.inf, [1.0] * 5, sigma=6, multiplier=3) == ("nonfinite", None)
    assert trouble(None, [1.0] * 5, sigma=6, multiplier=3) is None


def test_a_loss_explodes_when_it_is_far_above_all_that_was_seen() -> None:
    assert trouble(10.0, [1.0, 1.1, 0.9], sigma=6, multiplier=3) is not None
    assert trouble(2.0, [1.0, 1.1, 0.9], sigma=6, multiplier=3) is None  # many deviations, but not three times
    assert trouble(10.0, [1.0, 9.0, 1.0, 9.0], sigma=6, multiplier=3) is None  # it has always jumped about
    assert trouble(10.0, [1.0, 1.0], sigma=6, multiplier=3) is None  # too little is known
