"""What a program hands to growth: refused before it begins where the log could not hold it, and never raised later."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from morphogen.consumers.adaptation import GrowthConfig, GrowthError
from morphogen.consumers.policy import Limits, PolicyError, Proposal
from morphogen.kernels.slots import SiteError
from morphogen.schemas import AdaptationFinished, AdaptationStarted, EpochMeasured, SlotFailed, decode_event


class Waits:
    """A policy that has a number for its version."""

    name: Any = "waits"
    version: Any = 5

    def decide(self, observation: Any) -> Proposal:
        return Proposal(0)

    def learn(self, outcome: Any) -> None: ...


class Unspeakable(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


class Unmeasurable:
    """A number that is none."""

    def __float__(self) -> float:
        raise KeyError("no number")


def raises(error: Exception) -> Any:
    def function(*_: Any) -> Any:
        raise error

    return function


def test_the_beginning_of_growth_is_recorded_by_a_version_that_is_a_number(loop: Any) -> None:
    one = loop()
    grower = one.grow(policy=Waits())
    one.epochs(1, lambda loss: grower.epoch())

    (started,) = one.run.all(AdaptationStarted)
    assert started.policy_version == "5"
    assert isinstance(decode_event(started.type, 1, started.encode()), AdaptationStarted)


class Nameless(Waits):
    @property
    def name(self) -> str:
        raise RuntimeError("no name")


class Dated(Waits):
    version: Any = (1,)


class Stray(Waits):
    name = "\ud800"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"policy": Nameless()}, PolicyError, "Nameless is no policy: RuntimeError: no name"),
        ({"policy": Dated()}, PolicyError, "its version is text"),
        ({"policy": Stray()}, PolicyError, "its name is text"),
        ({"label": "\ud800"}, GrowthError, "a label is text"),
        ({"label": "x" * 1001}, GrowthError, "a label is text, of 1,000 characters at most"),
        ({"budget": {"max_params": 10**30}}, PolicyError, "max_params is 9223372036854775807 at most"),
        ({"budget": Limits(max_active="two")}, GrowthError, "budget does not fit"),  # type: ignore[arg-type]
        ({"config": GrowthConfig(auto="no")}, GrowthError, "config does not fit"),  # type: ignore[arg-type]
        ({"config": {"stage_timeout": 10**30}}, GrowthError, "config does not fit"),
        ({"config": {"stage_timeout": 0}}, GrowthError, "stage_timeout is 1 or more"),
        ({"config": {"strikes": 0}}, GrowthError, "strikes is 1 or more"),
        ({"config": {"quarantine_after": 0}}, GrowthError, "quarantine_after is 1 or more"),
        ({"config": {"breaker_failures": 0}}, GrowthError, "breaker_failures is 1 or more"),
        ({"config": {"breaker_successes": 0}}, GrowthError, "breaker_successes is 1 or more"),
        ({"config": {"most_failures": 0}}, GrowthError, "most_failures is 1 or more"),
        ({"config": {"sigma": 0.0, "multiplier": 0.0}}, GrowthError, "sigma or multiplier is above 0"),
        ({"reward": {"rent": -1.0}}, PolicyError, "reward: rent is a finite number, 0 or more"),
        ({"slots": 10**7}, GrowthError, "slots is 1,000 at most"),
        ({"config": {"retries": 1 << 63}}, GrowthError, "retries is below 9223372036854775808"),
        ({"sites": lambda name: True}, SiteError, "is called with a name and a module; at '.' it failed: TypeError"),
        ({"sites": raises(Unspeakable())}, SiteError, "it failed: Unspeakable: <Unspeakable>"),
        (
            {"menu": raises(ZeroDivisionError("none"))},
            GrowthError,
            "the menu's function failed for 0: ZeroDivisionError",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    loop: Any, options: Any, error: type[Exception], words: str
) -> None:
    one = loop()
    with pytest.raises(error, match=words) as raised:
        one.grow(**options)
    assert "\n" not in str(raised.value)
    assert not one.run.told


def other(one: Any) -> Any:
    return nn.Linear(2, 2).parameters()


def copies(one: Any) -> Any:
    return [parameter.detach().clone() for parameter in one.model.parameters()]


def part(one: Any) -> Any:
    return one.model[3].parameters()


def nothing(one: Any) -> Any:
    return [{"params": []}]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("held", [other, copies, part, nothing])
def test_a_program_is_told_that_its_optimizer_may_be_of_another_model(
    loop: Any, held: Any, frozen: bool, caplog: pytest.LogCaptureFixture
) -> None:
    one = loop()
    one.optimizer = torch.optim.SGD(held(one), 0.1)
    one.model.requires_grad_(not frozen)
    one.grow(policy="none")
    assert not caplog.records

    one.grow(run=loop().run)
    said = held in (other, copies) and not frozen
    assert ["holds no parameter of the model" in line for line in caplog.messages] == [True] * said


def test_what_is_no_module_is_refused_in_one_line(loop: Any) -> None:
    one = loop()
    one.model = "the model"
    with pytest.raises(SiteError, match="a torch module can grow, not a str"):
        one.grow()


def test_a_text_or_a_number_of_numpy_is_as_good_as_one_of_python(loop: Any) -> None:
    class Typed(Waits):
        name, version = np.str_("typed"), np.str_("1")

    one = loop()
    one.grow(policy=Typed(), label=np.str_("ours"), seed=np.int64(3))

    (started,) = one.run.all(AdaptationStarted)
    assert (started.policy, started.policy_version, started.label, started.seed) == ("typed", "1", "ours", 3)
    assert isinstance(decode_event(started.type, 1, started.encode()), AdaptationStarted)


def test_a_module_whose_name_is_no_text_is_refused(loop: Any) -> None:
    one = loop()
    one.model.add_module("\ud800", nn.Linear(4, 4))
    with pytest.raises(GrowthError, match="the beginning of growth cannot be recorded"):
        one.grow()


@pytest.mark.parametrize("wrong", [10**400, Unmeasurable(), torch.empty((), device="meta"), "x", [1], 1j])
def test_a_measurement_that_is_no_number_counts_as_none(loop: Any, wrong: Any) -> None:
    one = loop()
    grower = one.grow(policy="none", evaluate=None)
    one.epochs(1, lambda loss: grower.epoch(train_loss=wrong, val_loss=wrong, val_accuracy=wrong))
    grower.finish(wrong=wrong, right=1.0)

    (epoch,) = one.run.all(EpochMeasured)
    assert (epoch.train_loss, epoch.val_loss, epoch.val_accuracy) == (None, None, None)
    (finished,) = one.run.all(AdaptationFinished)
    assert finished.measured == {"right": 1.0}


def test_an_error_without_a_text_costs_no_epoch(loop: Any) -> None:
    class Fails(Waits):
        decide = learn = raises(Unspeakable())

    one = loop()
    grower = one.grow(policy=Fails(), evaluate=raises(Unspeakable()), config={"most_failures": 9})
    one.epochs(3, lambda loss: grower.epoch())

    assert len(one.run.all(EpochMeasured)) == 3
    assert {event.message for event in one.run.all(SlotFailed)} == {"evaluate: Unspeakable: <Unspeakable>"}


def test_what_a_menu_calls_an_entry_is_text_that_the_log_can_hold(loop: Any) -> None:
    from morphogen.kernels.blueprints import menu

    one = loop()
    one.grow(menu=lambda site: {"\ud800": next(iter(menu(site).values()))})

    (started,) = one.run.all(AdaptationStarted)
    assert {dish["name"] for dishes in started.config["menu"].values() for dish in dishes} == {"\\ud800"}
    assert isinstance(decode_event(started.type, 1, started.encode()), AdaptationStarted)
