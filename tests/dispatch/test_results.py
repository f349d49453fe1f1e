"""What runners, and whoever wires them, tell dispatch: numbers of any kind are taken, what is none is refused where it is told."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from morphogen.consumers.dispatch import DispatchConfig, DispatchError, Request, Result
from morphogen.kernels.sandbox import Capabilities, Declared
from morphogen.schemas import decode_event
from morphogen.schemas.executions import GoalEmbedded

from .world import Log, Loop, dispatcher


class Says:
    """A runner that returns, or raises, what it is given."""

    cap_microusd = None

    def __init__(self, made: Callable[[], Any]) -> None:
        self.made = made
        self.budget: object = None

    def run(self, request: Request, *rest: Any) -> Any:
        self.budget = rest[-1]
        return self.made()


def test_numbers_of_any_kind_are_whole_ones_in_the_log(caps: Capabilities, log: Log) -> None:
    says = Says(lambda: Result(ok=np.True_, cost_microusd=np.float32(1.6), duration_ns=-1.5, steps=2.0))  # type: ignore[arg-type]
    serves = dispatcher(
        log, caps, learner=says, environment={"n": 1}, config=DispatchConfig(follower=1, crystallized=1)
    )

    done = serves.do("Count it", {"n": 1}, budget_microusd=2.9)

    assert (done.ok, done.cost_microusd, says.budget) == (True, 2, 2)
    assert (serves.environment, type(done.ok)) == ({"n": "1"}, bool)
    for event in log.events:
        assert type(decode_event(event.type, event.version, event.encode())) is type(event)


class Unspeakable(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Odd:
    """A value that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


def _raised() -> None:
    raise Unspeakable


@pytest.mark.parametrize(
    "made",
    [
        lambda: None,
        lambda: Result(ok="yes"),  # type: ignore[arg-type]
        lambda: Result(ok=True, cost_microusd=math.nan),  # type: ignore[arg-type]
        lambda: Result(ok=True, cost_microusd=-5),
        lambda: Result(ok=True, steps="2"),  # type: ignore[arg-type]
        lambda: Result(ok=True, execution=5),  # type: ignore[arg-type]
        lambda: Result(ok=False, error=Unspeakable()),  # type: ignore[arg-type]
        _raised,
    ],
)
def test_a_runner_that_answers_what_is_no_result_has_failed_and_the_next_one_is_tried(
    made: Callable[[], Any], caps: Capabilities, log: Log
) -> None:
    serves = dispatcher(log, caps, learner=Says(made), orchestrator=Says(lambda: Result(ok=True, output=7)))

    done = serves.do("Count it", {"n": 1})

    assert (done.ok, done.mode, done.output, len(done.fell_back)) == (True, "orchestrator", 7, 1)
    assert "\n" not in done.fell_back[0].reason
    for event in log.events:
        assert type(decode_event(event.type, event.version, event.encode())) is type(event)


def test_a_result_of_a_runners_own_is_read_by_its_fields(caps: Capabilities, log: Log) -> None:
    own = SimpleNamespace(ok=True, output=7, cost_microusd=1.2, waiting=False)

    done = dispatcher(log, caps, learner=Says(lambda: own)).do("Count it")

    assert (done.ok, done.output, done.cost_microusd, done.execution) == (True, 7, 1, None)


class Embeds:
    """An embedder of the user's."""

    model = "mine:1"

    def __init__(self, vector: Any) -> None:
        self.vector = vector

    def embed(self, text: str) -> Any:
        return self.vector() if callable(self.vector) else self.vector


@pytest.mark.parametrize("vector", [None, "no", [math.nan, 1.0], [0, 0], [[1.0]], _raised], ids=str)
def test_an_embedder_that_fails_fails_no_request_and_fills_no_log(vector: Any, caps: Capabilities, log: Log) -> None:
    serves = dispatcher(log, caps, learner=Loop(log, lambda act, n: n), embedder=Embeds(vector))

    done = [serves.do(goal, {"n": 1}) for goal in ("Count it", "Add it", "Add it up")]

    assert [one.ok for one in done] == [True] * 3
    embedded = [(one.signature, one.model) for one in log.of(GoalEmbedded)]
    assert len(embedded) == len(set(embedded)) == (2 if vector == [[1.0]] else 0)


@pytest.mark.parametrize("cap", [math.nan, "5", -1])
def test_a_cap_that_is_no_amount_is_refused_where_the_runner_is_wired(cap: Any, caps: Capabilities, log: Log) -> None:
    with pytest.raises(DispatchError, match="cap_microusd of the learner"):
        dispatcher(log, caps, learner=Loop(log, _raised, cap=cap))


def test_an_act_whose_error_cannot_be_told_is_a_failure(caps: Capabilities, log: Log) -> None:
    odd = Capabilities(
        tools={"odd": Declared(lambda what: what, "write"), "fails": Declared(lambda: _raised(), "write")}
    )

    def run(request: Request, budget: Any) -> Any:
        request.capabilities.functions["odd"].function(what=Odd())
        request.capabilities.functions["fails"].function()

    runner = Says(_raised)
    runner.run = run  # type: ignore[assignment, method-assign]
    done = dispatcher(log, odd, learner=runner).do("Do what is odd")

    assert (done.ok, [act.ok for act in done.acts]) == (False, [True, False])
    assert done.fell_back[0].done == ["odd(what='<Odd>')"]
