"""A backtest over runs whose numbers are beyond all measure: what is not known is left out, and nothing fails."""

import math
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from morphogen.consumers.policy import load_policy
from morphogen.replay.backtest import Backtest, Recorded, again, compare, estimate, examine
from morphogen.schemas import DecisionOutcome, DecisionProposed, Event

from .paper import Paper


def gone_over(policy: str, change: Callable[[Event, int], Event]) -> Backtest:
    """Go over three runs with the policy that they had, whose events are changed by their run."""
    found = []
    for seed in range(3):
        recorded: Recorded = Paper(load_policy(policy, seed=seed), f"{policy}-{seed}", seed).run().recorded()
        told = tuple(one._replace(event=change(one.event, seed)) for one in recorded.told)
        found.append(examine(again(replace(recorded, told=told), load_policy(policy, seed=seed))))
    return compare(found, policy=policy)


def test_a_contribution_that_is_not_finite_is_no_evidence() -> None:
    def changed(event: Event, seed: int) -> Event:
        if isinstance(event, DecisionOutcome) and event.contribution is not None:
            return msgspec.structs.replace(event, contribution=(math.inf, -math.inf, math.nan)[seed])
        return event

    assert gone_over("heuristic", lambda event, seed: event).recorded.known
    assert gone_over("heuristic", changed).recorded.values == 0


@pytest.mark.parametrize("logprob", [-1e9, -math.inf, math.inf, 1e9])
def test_a_likelihood_that_nobody_drew_by_weighs_nothing(logprob: float) -> None:
    def changed(event: Event, _: int) -> Event:
        return msgspec.structs.replace(event, logprob=logprob) if isinstance(event, DecisionProposed) else event

    assert gone_over("random", lambda event, seed: event).weighted
    found = gone_over("random", changed)
    assert not found.weighted
    assert found.agreed.values


@given(
    st.dictionaries(
        st.sampled_from("abcd"),
        st.lists(st.tuples(st.floats(1e-40, 1e40), st.floats(allow_nan=False, allow_infinity=False)), max_size=4),
    )
)
@example({"a": [(1e40, 1e300), (1e40, -1e300)], "b": [(1.0, 1.0)]})
@example({"a": [(1e40, 1e300)], "b": [(1.0, 1.0)]})
def test_any_finite_numbers_have_a_mean_or_none_is_known(runs: dict[str, list[tuple[float, float]]]) -> None:
    found = estimate(runs)

    assert found.values == sum(map(len, runs.values()))
    assert found.mean is None or math.isfinite(found.mean)
