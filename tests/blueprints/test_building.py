"""A blueprint as a module: exact costs, fresh weights, and nothing of ours in what comes out."""

import copy
import io
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.kernels.blueprints import (
    Activation,
    Attention,
    Average,
    Blueprint,
    Conv,
    DepthwiseConv,
    Gate,
    InvalidBlueprint,
    Linear,
    LowRankLinear,
    Mlp,
    Norm,
    Residual,
    Resize,
    build,
    counted_flops,
    flops,
    menu,
    params,
    shape_of,
)
from morphogen.kernels.blueprints.costs import fixed
from morphogen.schemas import SiteInfo

from .sites import SITES, batch, blueprints


def site(kind: str, given: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> SiteInfo:
    return SiteInfo(
        site="s", kind=kind, in_shape=[e or 5 for e in given], out_shape=[e or 5 for e in wanted], slots=1, params=0
    )


@settings(max_examples=60)
@given(blueprints(), st.integers(0, 2**63))
def test_costs_are_exact_the_start_is_zero_and_it_learns_from_there(blueprint: Blueprint, seed: int) -> None:
    module = build(blueprint, seed=seed)
    wanted = fixed(shape_of(blueprint), 5, blueprint)
    x = batch(blueprint.inputs)
    y = module(x)

    assert y.shape == (3, *wanted)
    assert bool((y == 0).all())
    assert sum(weight.numel() for weight in module.parameters()) == params(blueprint)
    assert counted_flops(module, fixed(blueprint.inputs, 5, blueprint)) == flops(blueprint, length=5)
    y.sum().backward()
    assert any(weight.grad is not None and bool(weight.grad.abs().sum() > 0) for weight in module.parameters())


@pytest.mark.parametrize(("kind", "given", "wanted"), SITES)
def test_every_entry_of_a_menu_changes_the_output_once_its_last_weights_are_not_zero(
    kind: str, given: tuple[int | None, ...], wanted: tuple[int | None, ...]
) -> None:
    found = menu(site(kind, given, wanted))

    assert {"rank1", "mlp16", "mlp64"} <= set(found)
    for blueprint in found.values():
        y = build(blueprint, seed=1, zero_last=False)(batch(given))
        assert bool((y != 0).any()), blueprint.name
        assert bool(torch.isfinite(y).all())
        small = build(blueprint, seed=1, zero_last=False, gain=0.01)(batch(given))
        torch.testing.assert_close(small, y * 0.01, rtol=1e-3, atol=1e-6)


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    blueprint = menu(site("sequence", (16, 32), (16, 48)))["attention"]
    one, same, other = (build(blueprint, seed=seed).state_dict() for seed in (7, 7, 8))

    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_no_global_random_number_is_drawn_or_reseeded() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    for kind, entering, leaving in SITES:
        for blueprint in menu(site(kind, entering, leaving)).values():
            build(blueprint, seed=3, zero_last=False)

    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_of_another_dtype_are_the_same_ones_cast(dtype: torch.dtype) -> None:
    blueprint = menu(site("features", (64,), (2,)))["mlp16"]
    whole, cast = build(blueprint, seed=2, zero_last=False), build(blueprint, seed=2, zero_last=False, dtype=dtype)

    for name, value in whole.state_dict().items():
        assert torch.equal(value.to(dtype), cast.state_dict()[name])


def test_features_hold_for_any_axes_before_the_last_one() -> None:
    found = menu(SiteInfo(site="s", kind="features", in_shape=[5, 7, 8], out_shape=[5, 7, 6], slots=1, params=0))

    assert found["mlp16"].inputs == (8,)
    for blueprint in found.values():
        assert build(blueprint, seed=0)(torch.randn(2, 5, 7, 8)).shape == (2, 5, 7, 6)


def test_a_site_that_was_never_called_or_changes_its_length_has_an_empty_menu() -> None:
    assert menu(SiteInfo(site="s", kind="features", in_shape=None, out_shape=None, slots=1, params=0)) == {}
    assert menu(SiteInfo(site="s", kind="sequence", in_shape=[8, 4], out_shape=[4, 4], slots=1, params=0)) == {}


@pytest.mark.parametrize("name", ["norm", "mlp16", "attention", "conv3"])
def test_no_position_of_a_sequence_reads_a_later_one(name: str) -> None:
    module = build(menu(site("sequence", (16, 8), (16, 6)))[name], seed=1, zero_last=False)
    x = torch.randn(2, 16, 8)
    changed = x.clone()
    changed[:, 10:] += 1

    assert torch.equal(module(x)[:, :10], module(changed)[:, :10])
    assert not torch.equal(module(x)[:, 10:], module(changed)[:, 10:])


@settings(max_examples=25)
@given(blueprints())
def test_a_module_is_plain_torch_and_survives_copy_and_state_dict(blueprint: Blueprint) -> None:
    module = build(blueprint, seed=4, zero_last=False).eval()
    x = batch(blueprint.inputs)
    fresh = build(blueprint, seed=5)
    fresh.load_state_dict(module.state_dict())

    assert torch.equal(copy.deepcopy(module)(x), module(x))
    assert torch.equal(fresh.eval()(x), module(x))
    for part in module.modules():
        assert not type(part).__module__.startswith("morphogen")


EVERYTHING = [
    Blueprint(
        name="image",
        inputs=(4, 8, 8),
        nodes=(
            Norm(kind="batch"),
            DepthwiseConv(of=(1,), kernel=3, padding=1),
            Activation(of=(2,), function="silu"),
            Gate(of=(3,)),
            Residual(of=(0, 4)),
            Mlp(of=(5,), out=4, hidden=8),
            Resize(of=(6,), height=4, width=4),
            Conv(of=(7,), out=6, kernel=3, padding=1, groups=2),
        ),
        output=8,
    ),
    Blueprint(
        name="sequence",
        inputs=(8, 6),
        nodes=(
            Norm(kind="rms"),
            Attention(of=(1,), out=6, heads=2, width=4),
            Residual(of=(0, 2)),
            Conv(of=(3,), out=6, kernel=3),
            DepthwiseConv(of=(4,), kernel=3),
            Gate(of=(5, 3)),
            LowRankLinear(of=(6,), out=5, rank=2),
        ),
        output=7,
    ),
    Blueprint(name="pooled", inputs=(8, 6), nodes=(Average(), Linear(of=(1,), out=3)), output=2),
]


@pytest.mark.parametrize("blueprint", EVERYTHING, ids=lambda blueprint: blueprint.name)
def test_every_operation_exports_with_an_open_batch(blueprint: Blueprint) -> None:
    module = build(blueprint, seed=1, zero_last=False).eval()
    x = batch(blueprint.inputs, 4)
    exported = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))

    wider = batch(blueprint.inputs, 7)
    torch.testing.assert_close(exported.module()(wider), module(wider))


@pytest.mark.parametrize("blueprint", EVERYTHING, ids=lambda blueprint: blueprint.name)
def test_every_operation_compiles_without_a_break(blueprint: Blueprint) -> None:
    module = build(blueprint, seed=1, zero_last=False).eval()
    x = batch(blueprint.inputs, 4)

    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)

    torch.testing.assert_close(compiled(x), module(x))


def test_a_pickled_module_runs_in_a_process_that_cannot_import_us(tmp_path: Path) -> None:
    module = build(EVERYTHING[1], seed=1, zero_last=False).eval()
    x = batch(EVERYTHING[1].inputs, 2)
    held = io.BytesIO()
    torch.save((module, x, module(x)), held)
    (tmp_path / "module.pt").write_bytes(held.getvalue())
    script = (
        "import sys, torch\n"
        "sys.modules['morphogen'] = None\n"
        f"module, x, y = torch.load({str(tmp_path / 'module.pt')!r}, weights_only=False)\n"
        "assert torch.equal(module(x), y)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_mixed_precision_runs() -> None:
    for blueprint in EVERYTHING:
        module = build(blueprint, seed=1, zero_last=False).eval()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert module(batch(blueprint.inputs)).dtype == torch.bfloat16


def test_a_gain_that_would_not_be_finite_is_refused() -> None:
    for gain in (float("nan"), float("inf"), 1e9):
        with pytest.raises(InvalidBlueprint, match="gain"):
            build(EVERYTHING[0], seed=1, zero_last=False, gain=gain)
