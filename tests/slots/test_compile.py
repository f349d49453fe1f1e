"""torch.compile, torch.export and the transforms of torch.func over grown models."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from morphogen.kernels.slots import SiteError, adapt, contribution, fuse

from .hosts import HOSTS, SITES, batch, grow, host, same_bits

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
]


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def small(dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4)).to(dtype)


class Counted:
    """A backend that runs the graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, example: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.mark.parametrize(
    ("dtype", "stage"),
    [
        (torch.float32, "training"),
        (torch.bfloat16, "blending"),
    ],
    ids=str,
)
def test_a_silent_seed_leaves_every_bit_in_a_graph(dtype: torch.dtype, stage: str) -> None:
    x = batch("mlp", dtype)
    x[0, 0] = -0.0
    models = [small(dtype), small(dtype)]
    slots = adapt(models[0], slots=3, example=x)
    for number, blend in enumerate(("add", "multiply", "gate")):
        grow(slots, "0", stage, blend=blend, number=number)
    given = []
    for model in models:
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        output = compiled(x)
        output.float().square().sum().backward()
        given.append(output)

    assert same_bits(given[0], given[1])
    assert all(same_bits(models[0][i].weight.grad, models[1][i].weight.grad) for i in (0, 2))  # type: ignore[index,union-attr]
    assert all(slot.tripped is None for slot in slots.active())
    if stage == "training":
        assert all(parameter.grad is not None for slot in slots.active() for parameter in slot.params())


@pytest.mark.parametrize("name", ["cnn", "transformer", "encoder"])
def test_every_host_compiles_whole_and_gives_what_it_gives_without(name: str) -> None:
    x = batch(name)
    model, twin = host(name).eval(), host(name).eval()
    slots = adapt(model, example=x)
    for site in SITES[name][::3]:
        grow(slots, site, alpha=0.5)
    compiled = torch.compile(model, backend="eager", fullgraph=True)

    torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(compiled(x), twin(x))


def test_a_graph_is_made_again_when_a_stage_changes_and_not_when_alpha_does() -> None:
    x, model, counted = batch("mlp"), small(), Counted()
    slots = adapt(model, example=x)
    compiled = torch.compile(model, backend=counted, fullgraph=True)
    compiled(x)
    slot = grow(slots, "0", "training")
    compiled(x)
    slot.to("blending")
    compiled(x)
    graphs = counted.graphs
    assert graphs == 3
    slot.ramp(1.0, 4, "cosine")
    for _ in range(5):
        torch.testing.assert_close(compiled(x), model(x))
        slots.tick()
    slot.to("holding")
    compiled(x)
    slot.to("fossilized")
    torch.testing.assert_close(compiled(x), model(x))

    assert counted.graphs == graphs


def test_a_compiled_model_can_be_adapted_and_grown() -> None:
    x, model = batch("mlp"), small()
    compiled = torch.compile(model, backend="eager")
    before = compiled(x)
    slots = adapt(compiled, example=x)
    assert slots.model is compiled and slots.root is model
    slot = grow(slots, "0", alpha=0.5)

    torch.testing.assert_close(compiled(x), model(x))
    assert not torch.allclose(compiled(x), before)
    found = contribution(slots, slot.id, lambda m: float(m(x).detach().square().sum()))
    assert found.gain == pytest.approx(float((before.square().sum() - model(x).square().sum()).detach()), rel=1e-5)
    assert type(fuse(compiled)) is nn.Sequential


def test_a_poisoned_seed_is_cut_off_inside_a_graph() -> None:
    x, model, twin = batch("mlp"), small(), small()
    slots = adapt(model, example=x)
    slot = grow(slots, "0", alpha=0.5)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    compiled(x)
    for fill, reason in ((1e9, "exploding"), (float("nan"), "nonfinite")):
        with torch.no_grad():
            slot.params()[-1].fill_(fill)
        assert same_bits(compiled(x), twin(x))
        assert slot.tripped is not None and slot.tripped.startswith(reason)
        assert same_bits(compiled(x), twin(x)), "it stays off"
        if reason == "exploding":
            slot.to("pruned")
            for stage in ("embargoed", "resetting", "dormant"):
                slot.to(stage)
            slot = grow(slots, "0", alpha=0.5)


def test_batches_of_any_size_go_through_one_graph() -> None:
    model, counted = small(), Counted()
    slots = adapt(model, example=batch("mlp"))
    grow(slots, "0", alpha=0.5)
    compiled = torch.compile(model, backend=counted, fullgraph=True, dynamic=True)
    for size in (4, 7, 9):
        x = torch.randn(size, 6, generator=torch.Generator().manual_seed(size))
        torch.testing.assert_close(compiled(x), model(x))

    assert counted.graphs == 1


@pytest.mark.parametrize(("name", "fused"), [*((name, False) for name in HOSTS), ("cnn", True), ("encoder", True)])
def test_a_grown_model_exports_and_gives_the_same(name: str, fused: bool) -> None:
    x = batch(name)
    model = host(name).eval()
    slots = adapt(model, slots=2, example=x)
    for site in SITES[name]:
        grow(slots, site, alpha=0.5)
        grow(slots, site, "training", number=1)
    with torch.no_grad():
        expected = model(x)
        program = torch.export.export(fuse(model) if fused else model, (x,))
        given = program.module()(x)

    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-6)


def test_an_exported_model_keeps_the_host_at_alpha_0() -> None:
    x, model = batch("mlp"), small().eval()
    grow(adapt(model, example=x), "0", alpha=0.0)

    assert same_bits(torch.export.export(model, (x,)).module()(x), small()(x))


def test_an_exported_program_goes_through_a_file(tmp_path: Any) -> None:
    x, model = batch("mlp"), small().eval()
    grow(adapt(model, example=x), "0", alpha=0.5)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "grown.pt2")

    torch.testing.assert_close(torch.export.load(tmp_path / "grown.pt2").module()(x), model(x))


def test_per_sample_gradients_go_through_seeds() -> None:
    x, model = batch("mlp", torch.float64), small(torch.float64)
    slots = adapt(model, slots=2, example=x)
    grow(slots, "0", alpha=0.5)
    grow(slots, "0", "training", number=1)
    params = dict(model.named_parameters())

    def loss(params: dict[str, Tensor], sample: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(model, params, (sample[None],))
        return output.square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(params, x)
    model(x).square().sum().backward()

    assert all(each[name].abs().sum() > 0 for name in params)
    for name, parameter in params.items():
        torch.testing.assert_close(each[name].sum(0), parameter.grad)


def test_a_symbolic_trace_holds_what_grew() -> None:
    x, model = batch("mlp"), small()
    grow(adapt(model, example=x), "0", alpha=0.5)
    inside = nn.Sequential(nn.Sequential(model))
    grow_outside = adapt(small_block := nn.Sequential(nn.Sequential(nn.Linear(6, 4))), "0", example=x)
    grow(grow_outside, "0", alpha=0.5)

    assert torch.equal(torch.fx.symbolic_trace(inside)(x), model(x))
    assert torch.equal(torch.fx.symbolic_trace(small_block)(x), small_block(x))


def test_recomputed_activations_grow_too() -> None:
    from torch.utils.checkpoint import checkpoint

    x, model, twin = batch("mlp"), small(), small()
    for m in (model, twin):
        grow(adapt(m, example=x), "0", alpha=0.5)
    checkpoint(model, x, use_reentrant=False).sum().backward()
    twin(x).sum().backward()

    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), twin.parameters(), strict=True))  # type: ignore[arg-type]


def test_an_example_is_run_outside_of_the_graph_that_was_compiled() -> None:
    model = torch.compile(small(), backend="eager")

    with pytest.raises(SiteError, match="does not run"):
        adapt(model, example=torch.zeros(2, 7))
    assert [info.site for info in adapt(model, example=batch("mlp")).sites] == ["0", "2"]
