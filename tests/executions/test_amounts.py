"""Whatever number an author tells is in the log, or is refused where it is told: no event is lost."""

import math
from decimal import Decimal
from enum import StrEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from morphogen.producers.executions import ExecutionError, Prices, execution, feedback
from morphogen.producers.loops.llm.budget import Price
from morphogen.schemas.executions import ExecutionFeedback, ExecutionFinished, ExecutionStarted, ExecutionStep

from .conftest import Told

PRICES = Prices({"m": Price(1_000_000, 1_000_000)})
NO_AMOUNTS = [math.nan, math.inf, -1, -0.6, "12", True, 2**63, [3]]
_shared = hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


class Word(str):
    """A text of a class that no event takes as it is."""


class Judge(StrEnum):
    """One of the judges, as an author may hold them."""

    TEST = "assertion"


@_shared
@given(
    st.one_of(st.integers(0, 10**12), st.floats(0, 1e12), st.decimals(0, 10**12)),
    st.one_of(st.none(), st.floats(0, 1e9), st.integers(0, 10**9)),
)
def test_costs_and_counts_of_any_kind_are_whole_in_the_log(told: Told, cost: Any, tokens: Any) -> None:
    told.events.clear()
    with execution("Price it", {}, to=told, prices=PRICES, budget_microusd=cost) as ex:
        ex.asked(prompt="p", model="m", tokens_in=tokens, tokens_out=1.0, cost_microusd=cost, duration_ns=cost)
        ex.asked(prompt="p", model="m", tokens_in=3.0, tokens_out=np.int32(4))
        ex.finish(1, score=np.float32(0.5), cost_microusd=Decimal(cost))

    started, one, two, end = told.events
    assert isinstance(started, ExecutionStarted)
    assert isinstance(one, ExecutionStep)
    assert isinstance(two, ExecutionStep)
    assert isinstance(end, ExecutionFinished)
    assert (started.budget_microusd, one.cost_microusd, one.duration_ns) == (math.floor(cost), round(cost), round(cost))
    assert (one.tokens_in, one.priced_by) == (None if tokens is None else round(tokens), "told")
    assert (two.cost_microusd, two.priced_by, end.cost_microusd, end.score) == (7, "prices", round(cost), 0.5)
    assert ex.spent_microusd == round(cost) + 7


@pytest.mark.parametrize("name", ["cost_microusd", "tokens_in", "tokens_out"])
@pytest.mark.parametrize("value", NO_AMOUNTS, ids=repr)
def test_what_is_no_amount_is_refused_where_it_is_told_and_the_work_goes_on(told: Told, name: str, value: Any) -> None:
    with execution("Price it", {}, to=told) as ex:
        with pytest.raises(ExecutionError, match=name):
            ex.asked(prompt="p", **{name: value})
        if name == "cost_microusd":
            with pytest.raises(ExecutionError, match=name):
                ex.finish(1, cost_microusd=value)
            with pytest.raises(ExecutionError, match="budget"):
                execution("Price it", {}, to=told, budget_microusd=value)
        ex.finish(1)

    assert (ex.steps, ex.spent_microusd) == (0, 0)
    assert [type(event) for event in told.events] == [ExecutionStarted, ExecutionFinished]


@pytest.mark.parametrize("score", [math.nan, math.inf, "good", [1], 10**400], ids=lambda score: type(score).__name__)
def test_a_score_is_a_finite_number(told: Told, score: Any) -> None:
    with execution("Price it", {}, to=told) as ex:
        with pytest.raises(ExecutionError, match="score"):
            ex.finish(1, score=score)
        ex.finish(1, score=True)
    assert ex.finished is not None
    assert ex.finished.score == 1.0


def test_texts_of_any_class_and_names_of_any_type_reach_the_log(told: Told) -> None:
    with execution(Word("Do it"), {1: 2}, to=told, mode=Word("learner"), parent=Word("p\udc80"), request=Word("r"),  # type: ignore[dict-item]
                   environment={2: 3}, packages="no-such-package") as ex:  # type: ignore[dict-item]  # fmt: skip
        ex.step(Word("do"), {1: 2}, kind=Word("tool"), effect=Word("read"), model=Word("m"), priced_by=Word("me"))  # type: ignore[dict-item]
        ex.asked(prompt="p", model=5)  # type: ignore[arg-type]
        ex.finish(1, outcome=Word("success"), judged_by=Judge.TEST)
    feedback(Word(ex.id), Word("failure"), judged_by=Word("user"), to=told)

    started, one, two, end, judged = told.events
    assert isinstance(started, ExecutionStarted)
    assert isinstance(one, ExecutionStep)
    assert isinstance(two, ExecutionStep)
    assert isinstance(end, ExecutionFinished)
    assert isinstance(judged, ExecutionFeedback)
    assert (started.params, started.parent, started.request) == ({"1": 2}, "p?", "r")
    assert (started.environment["2"], started.environment["package.no-such-package"]) == ("3", "absent")
    assert (one.args, one.effect, one.model, one.priced_by, two.model) == ({"1": 2}, "read", "m", "me", "5")
    assert (end.judged_by, judged.outcome) == ("assertion", "failure")


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"params": [1]}, "params"),
        ({"environment": ["x"]}, "environment"),
        ({"parent": 5}, "parent"),
        ({"request": ""}, "request"),
    ],
)
def test_what_has_no_names_or_is_no_id_is_refused_before_it_begins(told: Told, given: Any, what: str) -> None:
    with pytest.raises(ExecutionError, match=what):
        execution("Do it", to=told, **given)
    with execution("Do it", to=told) as ex, pytest.raises(ExecutionError, match="args"):
        ex.step("do", [1])  # type: ignore[arg-type]
    for name in (ex, "", None):
        with pytest.raises(ExecutionError, match="id"):
            feedback(name, "success", to=told)  # type: ignore[arg-type]
