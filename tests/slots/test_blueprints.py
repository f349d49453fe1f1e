"""What blueprints build grows in slots: every entry of the menu at sites of every kind."""

import json

import pytest
import torch

from morphogen.kernels.blueprints import address, build, encode, menu
from morphogen.kernels.slots import adapt, fuse, restore

from .hosts import SITES, batch, host

ONE_OF_A_KIND = [
    ("mlp", "0"),
    ("cnn", "stem.0"),
    ("cnn", "blocks.1"),
    ("transformer", "blocks.0"),
    ("encoder", "inner.layers.0.linear2"),
]


@pytest.mark.parametrize(("name", "site"), ONE_OF_A_KIND)
def test_every_entry_of_the_menu_grows_trains_changes_the_output_and_fuses(name: str, site: str) -> None:
    x = batch(name)
    info = next(info for info in adapt(host(name), example=x).sites if info.site == site)
    entries = menu(info)
    assert entries
    for entry, blueprint in entries.items():
        model = host(name).eval()
        slots = adapt(model, example=x)
        slot = slots[f"{site}#0"]
        before = model(x)
        slot.germinate(build(blueprint, seed=5, zero_last=False), blueprint=address(blueprint))
        slot.to("training")
        model(x).square().sum().backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in slot.params()), entry
        slot.to("blending")
        slot.set_alpha(0.5)

        assert not torch.equal(model(x), before), entry
        assert slot.tripped is None
        torch.testing.assert_close(fuse(model)(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_fresh_blueprint_begins_as_nothing_and_learns() -> None:
    x, model = batch("mlp"), host("mlp").eval()
    slots = adapt(model, example=x)
    slot = slots["0#0"]
    blueprint = menu(slots.sites[0])["mlp16"]
    slot.germinate(build(blueprint, seed=5), blueprint=address(blueprint))
    for stage in ("training", "blending"):
        slot.to(stage)
    slot.set_alpha(1.0)
    assert torch.equal(model(x), host("mlp").eval()(x))
    model(x).square().sum().backward()

    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in slot.params())


def test_a_description_with_blueprints_in_it_restores_by_itself() -> None:
    x, model = batch("cnn"), host("cnn").eval()
    slots = adapt(model, example=x)
    for info in slots.sites:
        blueprint = next(iter(menu(info).values()))
        slot = slots[f"{info.site}#0"]
        slot.germinate(
            build(blueprint, seed=2, zero_last=False),
            blueprint=address(blueprint),
            generator_seed=2,
            spec=encode(blueprint),
        )
        for stage in ("training", "blending"):
            slot.to(stage)
        slot.set_alpha(0.5)
    fresh = host("cnn").eval()
    again = restore(fresh, json.loads(json.dumps(slots.describe())))
    fresh.load_state_dict(model.state_dict())

    assert len(again.active()) == len(SITES["cnn"])
    assert torch.equal(fresh(x), model(x))
