"""Copies, checkpoints and pickles of grown models."""

import copy
import io
import json
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from morphogen.kernels.slots import SlotError, Slots, adapt, restore

from .hosts import HOSTS, SITES, batch, grow, host, same_bits, seed_for


def grown(name: str) -> Slots:
    slots = adapt(host(name).eval(), slots=2, example=batch(name))
    for number, site in enumerate(SITES[name]):
        stage = ("blending", "holding", "training", "germinated", "fossilized")[number % 5]
        grow(
            slots,
            site,
            stage,
            alpha=0.1 * (number % 5 + 1),
            blend=("add", "gate", "multiply")[number % 3],
            number=number % 2,
        )
    return slots


def build(name: str) -> Any:
    shapes = adapt(host(name), example=batch(name))
    return lambda blueprint, seed: seed_for(shapes, blueprint, seed)


def rebuilt(name: str, slots: Slots, model: nn.Module) -> Slots:
    """What a description that went through JSON grows again."""
    description = json.loads(json.dumps(slots.describe()))
    for entry in description["slots"]:
        if "blueprint" in entry:
            entry["blueprint"] = entry["slot"].split("#")[0]
    return restore(model, description, build(name))


@pytest.mark.parametrize("name", HOSTS)
def test_a_grown_model_goes_through_description_and_state_dict(name: str) -> None:
    slots, x = grown(name), batch(name)
    with torch.no_grad():
        for parameter in slots.model.parameters():
            parameter.add_(0.01)
    file = io.BytesIO()
    torch.save(slots.model.state_dict(), file)
    file.seek(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        fresh = HOSTS[name]().eval()
    again = rebuilt(name, slots, fresh)
    fresh.load_state_dict(torch.load(file, weights_only=True))

    assert same_bits(fresh(x), slots.model(x))
    assert [(s.id, s.stage, s.alpha, s.blend, s.seed_id) for s in again.active()] == [
        (s.id, s.stage, s.alpha, s.blend, s.seed_id) for s in slots.active()
    ]
    assert again.sites == slots.sites


def test_the_state_dict_keeps_the_names_of_the_host_and_adds_the_seeds() -> None:
    model = host("cnn")
    before = list(model.state_dict())
    slots = adapt(model, example=batch("cnn"))
    grow(slots, "blocks.0.conv1", alpha=0.5)
    after = list(model.state_dict())

    assert [key for key in after if ".grown." not in key] == before
    assert {key for key in after if ".grown." in key} == {
        "blocks.0.conv1.grown.0.alpha",
        "blocks.0.conv1.grown.0.seed.0.weight",
        "blocks.0.conv1.grown.0.seed.0.bias",
    }


@pytest.mark.parametrize("name", HOSTS)
def test_a_deep_copy_of_the_slots_is_a_grown_model_of_its_own(name: str) -> None:
    slots, x = grown(name), batch(name)
    before = slots.model(x).detach()
    for shadow in (copy.deepcopy(slots), slots.shadow()):
        assert same_bits(shadow.model(x), before)
        for slot in shadow.active():
            if slot.stage != "fossilized":
                slot.to("pruned") if slot.stage != "holding" else slot.set_alpha(0.0)
        assert not torch.equal(shadow.model(x), before)
        assert same_bits(slots.model(x), before)


def test_a_deep_copy_of_the_model_alone_gives_the_same() -> None:
    slots, x = grown("mlp"), batch("mlp")

    assert same_bits(copy.deepcopy(slots.model)(x), slots.model(x))


def test_a_copy_made_before_the_first_pass_records_for_itself() -> None:
    slots = adapt(host("mlp"))
    shadow = copy.deepcopy(slots)
    shadow.model(batch("mlp"))

    assert shadow.sites[0].in_shape == [6] and slots.sites[0].in_shape is None
    slots.model(batch("mlp"))
    assert slots.sites == shadow.sites


def test_a_whole_grown_model_can_be_pickled() -> None:
    slots, x = grown("cnn"), batch("cnn")

    again = pickle.loads(pickle.dumps(slots.model))

    assert same_bits(again(x), slots.model(x))
    assert [type(module).__name__ for module in again.modules()] == [type(m).__name__ for m in slots.model.modules()]


def test_a_shadow_leaves_behind_what_watches_the_model_for_the_log() -> None:
    class Queue:
        def __deepcopy__(self, memo: object) -> object:
            raise TypeError("cannot copy a thread")

        def seen(self, module: nn.Module, given: object, gave: object) -> None: ...

    Queue.seen.__module__ = "morphogen.producers.watch"
    slots = grown("mlp")
    slots.model.register_forward_hook(Queue().seen)
    calls: list[int] = []
    slots.model.register_forward_hook(lambda *_: calls.append(1))
    shadow = slots.shadow()
    shadow.model(batch("mlp"))

    assert calls == [1] and len(shadow.model._forward_hooks) == 1


def test_loading_a_state_dict_sets_alpha_as_number_and_buffer() -> None:
    one, two = (adapt(host("mlp"), example=batch("mlp")) for _ in range(2))
    grow(one, "0", alpha=0.3)
    slot = grow(two, "0", alpha=0.9)
    two.model.load_state_dict(one.model.state_dict())

    assert slot.alpha == 0.3


@pytest.mark.parametrize(
    "hostile",
    [
        {},
        {"format": 2, "slots_per_site": 1, "sites": [], "slots": []},
        {"format": 1, "slots_per_site": 1, "sites": "0", "slots": []},
        {
            "format": 1,
            "slots_per_site": 1,
            "sites": [{"site": "9", "given": None, "gave": None, "dtype": None}],
            "slots": [],
        },
        {
            "format": 1,
            "slots_per_site": 1,
            "sites": [{"site": "0", "given": [2, 6], "gave": [2, 3], "dtype": "os"}],
            "slots": [],
        },
    ],
    ids=range(5),
)
def test_a_description_that_does_not_fit_is_refused_in_one_line(hostile: dict[str, object]) -> None:
    model = host("mlp")
    with pytest.raises(SlotError) as error:
        restore(model, hostile)

    assert "\n" not in str(error.value)
    assert type(model[0]) is nn.Linear  # type: ignore[index]


def test_a_seed_that_cannot_be_built_again_leaves_the_model_as_it_was() -> None:
    slots = grown("mlp")
    model = host("mlp")

    with pytest.raises(SlotError, match="does not say how"):
        restore(model, slots.describe())
    calls = iter([build("mlp")("0", 1), nn.Linear(1, 1), nn.Linear(1, 1)])
    with pytest.raises(SlotError, match=r"does not run|gives"):
        restore(model, slots.describe(), lambda _, __: next(calls))
    assert not any(type(module).__name__.startswith("Grown") for module in model.modules())
