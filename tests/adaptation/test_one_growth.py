"""One growth to a run: a second one could not be told from it in the log."""

import gc
from typing import Any

import pytest

from morphogen.consumers.adaptation import GrowthError, claims
from morphogen.schemas import (
    AdaptationFinished,
    AdaptationStarted,
)


def test_a_run_holds_one_growth_and_refuses_a_second_in_one_line(loop: Any) -> None:
    one, other = loop(), loop()
    grower = one.grow(policy="none")
    for _ in range(2):  # while it is open, and after it has ended
        with pytest.raises(GrowthError, match="a growth is recorded in this run already") as raised:
            other.grow(run=one.run, policy="none")
        assert "\n" not in str(raised.value)
        grower.finish()
    assert len(one.run.all(AdaptationStarted)) == len(one.run.all(AdaptationFinished)) == 1
    other.grow(policy="none")


def test_a_run_in_which_growth_did_not_begin_is_free_for_another(loop: Any) -> None:
    one = loop()
    with pytest.raises(GrowthError):
        one.grow(policy="remote")  # this recorder has no settings
    one.grow(policy="none", example=None).finish()  # nothing went through the model: nothing is told
    assert one.run.told == []
    one.grow(policy="none")
    assert len(one.run.all(AdaptationStarted)) == 1


def test_a_recorder_of_any_kind_is_claimed_and_let_go(loop: Any) -> None:
    class Slotted:
        __slots__ = ()

        def event(self, event: Any, *, step: int | None = None, cause: str | None = None) -> str | None:
            return None

    class Unhashable(Slotted):
        __slots__ = ("__weakref__",)
        __hash__ = None  # type: ignore[assignment]

    for run in (Slotted(), Unhashable()):
        loop().grow(run=run, policy="none")
    with pytest.raises(GrowthError):
        loop().grow(run=run, policy="none")
    key = id(run)
    assert key in claims._CLAIMED
    del run
    gc.collect()
    assert key not in claims._CLAIMED
