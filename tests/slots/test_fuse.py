"""A fused model is plain torch, gives what the grown one gave, and needs nothing of ours."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from morphogen.kernels.slots import SlotError, Slots, adapt, fuse

from .hosts import EVERY_SITE, HOSTS, SITES, batch, grow, host, same_bits


def ours(model: nn.Module) -> list[str]:
    found = [type(module).__module__ for module in model.modules()]
    for module in model.modules():
        found += [
            type(hook).__module__ for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        ]
        found += [vars(type(module)).get("_grown_from", nn.Module).__module__]
    return [name for name in found if name.startswith("morphogen")] + [
        key for key in model.state_dict() if "grown" in key
    ]


BLENDS = ["add", "multiply", "gate"]


@pytest.mark.parametrize(
    ("name", "site", "blend"), [(*place, BLENDS[number % 3]) for number, place in enumerate(EVERY_SITE)]
)
def test_a_fused_model_gives_the_same_bits_where_nothing_is_folded(name: str, site: str, blend: str) -> None:
    model, x = host(name).eval(), batch(name)
    before = model(x)
    slots = adapt(model, example=x)
    grow(slots, site, "holding", alpha=0.3, blend=blend)
    grown = model(x)
    plain = fuse(model)

    assert ours(plain) == []
    for train in (False, True):
        plain.train(train)
        model.train(train)
        assert same_bits(plain(x), model(x))
    model.eval()
    assert not torch.equal(grown, before)
    assert same_bits(model(x), grown) or name in ("mlp", "cnn")  # those have moved their running statistics since
    with torch.no_grad():
        assert same_bits(plain.eval()(x), model(x))


@pytest.mark.parametrize("name", HOSTS)
def test_what_is_not_blended_in_leaves_no_trace(name: str) -> None:
    model, x = host(name).eval(), batch(name)
    slots = adapt(model, slots=3, example=x)
    for site in SITES[name]:
        for number, stage in enumerate(("germinated", "training", "blending")):
            grow(slots, site, stage, number=number)
    plain = fuse(model)

    assert [type(module) for module in plain.modules()] == [type(module) for module in host(name).modules()]
    assert list(plain.state_dict()) == list(host(name).state_dict())
    with torch.no_grad():
        assert same_bits(plain(x), host(name).eval()(x))


def one_seed(model: nn.Module, site: str, seed: nn.Module, x: Tensor, blend: str = "add") -> Slots:
    slots = adapt(model.eval(), site, example=x)
    slots[f"{site}#0"].germinate(seed, blueprint="test", blend=blend)
    for stage in ("training", "blending"):
        slots[f"{site}#0"].to(stage)
    slots[f"{site}#0"].set_alpha(0.7)
    return slots


@pytest.mark.parametrize("blend", ["add", "gate"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "seed",
    [
        lambda: nn.Linear(6, 3),
        lambda: nn.Sequential(nn.Linear(6, 2, bias=False), nn.Linear(2, 3)),
        lambda: nn.Sequential(
            nn.Linear(6, 2), nn.Identity(), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3, bias=False))
        ),
    ],
    ids=["linear", "rank2", "nested"],
)
def test_a_linear_seed_becomes_part_of_the_weight(seed: Callable[[], nn.Module], bias: bool, blend: str) -> None:
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(6, 3, bias=bias), nn.ReLU())
    one_seed(model, "0", seed(), x, blend)
    plain = fuse(model)

    assert [type(module) for module in plain.modules()] == [nn.Sequential, nn.Linear, nn.ReLU]
    assert ours(plain) == []
    torch.testing.assert_close(plain(x), model(x), rtol=1e-6, atol=1e-6)


CONVOLUTIONS = {
    "same": (nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1), True),
    "pointwise": (nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 1), True),
    "strided": (nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), nn.Conv2d(4, 6, 1, stride=2), True),
    "depthwise": (nn.Conv2d(4, 4, 5, padding=2), nn.Conv2d(4, 4, 3, padding=1, groups=4), True),
    "grouped": (nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Conv2d(4, 4, 3, padding=1, groups=2), True),
    "dilated": (nn.Conv2d(4, 6, 3, padding=2, dilation=2), nn.Conv2d(4, 6, 1, dilation=2), True),
    "wider": (nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 5, padding=2), False),
    "reflected": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), nn.Conv2d(4, 6, 1), False),
    "by name": (nn.Conv2d(4, 6, 3, padding="same"), nn.Conv2d(4, 6, 3, padding=1), False),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_becomes_part_of_the_weight_where_its_taps_fall_on_the_hosts(name: str) -> None:
    conv, seed, folds = CONVOLUTIONS[name]
    x = torch.randn(2, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(conv, nn.ReLU())
    one_seed(model, "0", seed, x)
    plain = fuse(model)

    assert ([type(module) for module in plain.modules()] == [nn.Sequential, nn.Conv2d, nn.ReLU]) == folds
    assert ours(plain) == []
    torch.testing.assert_close(plain(x), model(x), rtol=1e-6, atol=2e-6)


def test_a_tied_weight_is_not_folded_into() -> None:
    x = batch("transformer")
    model = host("transformer")
    one_seed(model, "head", nn.Linear(8, 11), x)
    plain = fuse(model)

    assert plain.head.weight is plain.embed.weight
    assert torch.equal(plain.embed.weight, model.embed.weight)
    assert same_bits(plain(x), model(x))


def test_a_sum_after_a_product_is_not_folded_before_it() -> None:
    x = batch("mlp")
    model = host("mlp").eval()
    slots = adapt(model, "0", slots=3, example=x)
    for number, blend in enumerate(("add", "multiply", "add")):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(number)
            slots[f"0#{number}"].germinate(nn.Linear(6, 3), blueprint="linear", blend=blend)
        for stage in ("training", "blending"):
            slots[f"0#{number}"].to(stage)
        slots[f"0#{number}"].set_alpha(0.5)

    torch.testing.assert_close(fuse(model)(x), model(x), rtol=1e-6, atol=1e-6)


def test_a_fused_model_goes_on_training_as_the_grown_one() -> None:
    x = batch("mlp", torch.float64)
    model = host("mlp", torch.float64)
    slots = adapt(model, example=x)
    for site, blend in (("0", "add"), ("2", "gate"), ("5", "multiply")):
        grow(slots, site, "holding", alpha=0.5, blend=blend)
    models = [model, fuse(model)]
    for m in models:
        optimizer = torch.optim.SGD(m.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            m(x).square().mean().backward()
            optimizer.step()

    torch.testing.assert_close(models[0](x), models[1](x))


@pytest.mark.parametrize("name", HOSTS)
def test_the_pickle_of_a_fused_model_names_nothing_of_ours(name: str) -> None:
    model, x = host(name).eval(), batch(name)
    slots = adapt(model, example=x)
    for number, site in enumerate(SITES[name]):
        grow(slots, site, "holding", alpha=0.4, blend=("add", "multiply", "gate")[number % 3])
    data = pickle.dumps(fuse(model))

    assert b"morphogen" not in data
    assert same_bits(pickle.loads(data)(x), model(x))


def test_a_fused_model_runs_where_morphogen_cannot_be_imported(tmp_path: Path) -> None:
    model, x = host("mlp").eval(), batch("mlp")
    slots = adapt(model, example=x)
    for site, blend in (("0", "add"), ("2", "gate"), ("5", "multiply")):
        grow(slots, site, "holding", alpha=0.4, blend=blend)
    path = tmp_path / "fused.pt"
    torch.save((fuse(model), x, model(x)), path)
    source = f"""
import sys
sys.modules["morphogen"] = None
import torch
model, x, expected = torch.load({str(path)!r}, weights_only=False)
assert torch.equal(model(x), expected)
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=120)

    assert (done.returncode, done.stderr) == (0, "")


def test_a_model_that_torch_cannot_copy_is_refused_in_one_line() -> None:
    class Holds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.kept = self.inner(x)  # no leaf of the graph: torch does not copy it
            return self.kept

    model, x = Holds(), torch.randn(2, 3)
    slots = adapt(model, example=x)
    grow(slots, "inner", "blending", alpha=1.0)
    model(x)
    for copies in (slots.shadow, lambda: fuse(model)):
        with pytest.raises(SlotError, match="this Holds cannot be copied: ") as told:
            copies()  # type: ignore[operator]
        assert "\n" not in str(told.value)
    with torch.no_grad():
        model(x)
    torch.testing.assert_close(fuse(model)(x), model(x))


def test_a_model_in_wrappers_is_fused_without_them(tmp_path: Path) -> None:
    model, x = host("mlp"), batch("mlp")
    grow(adapt(model, example=x), "0", alpha=0.7)
    model.train()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        wrapped(x).sum().backward()
        plain = fuse(torch.compile(wrapped, backend="eager"), x)
    finally:
        torch.distributed.destroy_process_group()

    assert type(plain) is nn.Sequential and next(iter(plain.state_dict())) == "0.weight"
    assert same_bits(plain.eval()(x), model.eval()(x))
