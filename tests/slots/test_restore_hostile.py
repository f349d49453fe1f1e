"""Descriptions that are damaged or made up: refused with the model as it was, or a sound model."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from morphogen.kernels import blueprints
from morphogen.kernels.slots import SlotError, Slots, adapt, restore

from .hosts import batch, host, same_bits


def described() -> dict[str, Any]:
    """Two seeds that can be built again, one of them with a ramp under way, and a dormant slot."""
    slots = adapt(host("mlp"), ["0", "2", "5"], example=batch("mlp"))
    for number, name in enumerate(("0#0", "2#0")):
        blueprint = blueprints.menu(slots.sites[number])["mlp16"]
        module = blueprints.build(blueprint, seed=1)
        slots[name].germinate(module, blueprint="mlp16", spec=blueprints.encode(blueprint), generator_seed=1)
        slots[name].to("training")
    slots["2#0"].to("blending")
    slots["2#0"].ramp(1.0, 10, "cosine")
    slots.tick()
    found: dict[str, Any] = json.loads(json.dumps(slots.describe()))
    return found


DESCRIBED = described()


def state(model: nn.Module) -> list[tuple[str, type[nn.Module], list[str]]]:
    return [
        (name, type(module), sorted(key for key, value in vars(module).items() if value not in ({}, None)))
        for name, module in model.named_modules()
    ]


def refused(
    description: Any, build: Callable[[str, int], Any] | None = None, error: type[Exception] = SlotError
) -> str:
    """Try to restore, see that the model is as it was, and give the text of the error."""
    model, untouched = host("mlp"), host("mlp")
    with pytest.raises(error) as found:
        restore(model, description, build)
    assert state(model) == state(untouched)
    assert all(map(same_bits, model.state_dict().values(), untouched.state_dict().values()))
    assert list(model.state_dict()) == list(untouched.state_dict())
    return str(found.value)


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    description = copy.deepcopy(DESCRIBED)
    *way, last = path
    place: Any = description
    for step in way:
        place = place[step]
    place[last] = to
    return description


@pytest.mark.parametrize(
    ("path", "to", "why"),
    [
        (("slots", 1, "spec"), "aGVsbG8=", "cannot be built"),
        (("slots", 1, "spec"), "é", "no base64"),
        (("slots", 1, "spec"), "@@@", "no base64"),
        (("slots", 1, "spec"), None, "does not say how"),
        (("slots", 1, "alpha"), float("nan"), "alpha"),
        (("slots", 1, "alpha"), 7.0, "alpha"),
        (("slots", 1, "alpha"), -1.0, "alpha"),
        (("slots", 1, "epochs_in_stage"), -5, "epochs_in_stage"),
        (("slots", 1, "germinated"), 0, "none has germinated"),
        (("slots", 1, "ramp", "done"), 11, "11 steps of a ramp of 10"),
        (("slots", 1, "ramp", "done"), -1, "done"),
        (("slots", 1, "stage"), "fossilized", "a ramp is under way"),
        (("slots", 1, "stage"), "training", "a ramp is under way"),
        (("slots",), DESCRIBED["slots"][:2], "2 slots"),
        (("slots", 2), DESCRIBED["slots"][0], "twice"),
        (("slots_per_site",), 1 << 40, "slots"),
        (("sites", 1, "given"), [-4, 3], "given"),
        (("sites", 1, "given"), [2, 1 << 40], "does not run"),
        (("sites", 1, "given"), [1 << 40, 1 << 40], "does not run"),
    ],
)
def test_what_no_slots_could_have_said_is_refused(path: tuple[str | int, ...], to: Any, why: str) -> None:
    text = refused(changed(*path, to=to))
    assert why in text and "\n" not in text


def test_a_build_that_fails_or_gives_no_module_leaves_the_model_as_it_was() -> None:
    calls = iter(["0#0"])

    def build(_: str, __: int) -> nn.Module | None:
        if next(calls, None) is None:
            raise KeyError("mine")
        return nn.Linear(6, 3)

    assert "mine" in refused(DESCRIBED, build, KeyError)
    assert "not a NoneType" in refused(DESCRIBED, lambda _, __: None)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(SlotError, match="not a str"):
        restore("x", DESCRIBED)  # type: ignore[arg-type]
    with pytest.raises(SlotError, match="not a function"):
        adapt(lambda x: x)  # type: ignore[arg-type]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 2, 3, 10, 11, 1 << 62, 1 << 70]),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["dormant", "germinated", "training", "blending", "fossilized", "pruned", "gate", "0#0", "2", "*"]),
    st.lists(st.sampled_from([-1, 0, 3, 4, 6, 8]), max_size=4),
)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    description = copy.deepcopy(DESCRIBED)
    for _ in range(draw(st.integers(1, 3))):
        place: Any = description
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or draw(st.integers(0, 9)) == 0:
                act = draw(st.sampled_from(["set", "set", "set", "take", "twice"]))
                if act == "take":
                    del place[key]
                elif act == "twice" and isinstance(place, list):
                    place.append(copy.deepcopy(place[key]))
                else:
                    place[key] = draw(VALUES)
                break
            place = place[key]
    return description


@settings(max_examples=80, deadline=None)
@given(damaged())
def test_a_damaged_description_is_refused_whole_or_gives_a_sound_model(description: Any) -> None:
    model = host("mlp")
    try:
        slots: Slots = restore(model, description)
    except SlotError:
        assert "\n" not in refused(description)
        return
    x = batch("mlp")
    for _ in range(12):
        slots.tick()
        assert all(0.0 <= slot.alpha <= 1.0 for slot in slots.values())
        assert torch.isfinite(model(x)).all()
    again = host("mlp")
    restore(again, json.loads(json.dumps(slots.describe())))
    again.load_state_dict(model.state_dict())
    assert same_bits(again.eval()(x), model.eval()(x))
