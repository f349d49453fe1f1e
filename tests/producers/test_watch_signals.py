"""Each signal of the watch against a plain float64 computation, on both the host's and the device's way."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from morphogen.producers.watch import LayerSample, Watch, host, native
from morphogen.producers.watch import watch as planning

Links = Callable[[torch.device], Any]
SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class LateEvent:
    """Passes at the third look, as a device's event that is still behind."""

    def __init__(self, arrive: Callable[[], object]) -> None:
        self._looks, self._arrive = 0, arrive

    def query(self) -> bool:
        self._looks += 1
        if self._looks == 3:
            self._arrive()
        return self._looks >= 3


class LateLink:
    """Copies when the event passes, not before: who reads too early reads NaN."""

    def fetch(self, values: Tensor) -> tuple[Tensor, LateEvent]:
        host = torch.full_like(values, math.nan)
        return host, LateEvent(lambda: host.copy_(values))


def host_way(device: torch.device) -> None:
    return None


def device_way(device: torch.device) -> LateLink:
    return LateLink()


def numpy_way(device: torch.device) -> None:
    """The host's way where the compiled routine was not built."""


both_ways = pytest.mark.parametrize("way", [host_way, numpy_way, device_way])


class Reference:
    """Keeps copies of everything at every step, and computes each signal in float64."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.layers = {
            name or "(root)": module
            for name, module in model.named_modules()
            if list(module.named_parameters(recurse=False))
        }
        self.outputs: dict[str, list[npt.NDArray[np.float64]]] = {}
        for name, module in self.layers.items():
            module.register_forward_hook(self._keeper(name, model))
        self.steps: list[dict[str, dict[str, float]]] = []
        optimizer.register_step_pre_hook(lambda *_: self.before())
        optimizer.register_step_post_hook(lambda *_: self.after())

    def _keeper(self, name: str, model: nn.Module) -> Callable[..., None]:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            if torch.is_grad_enabled() and model.training:
                output = output[0] if isinstance(output, tuple) else output
                self.outputs.setdefault(name, []).append(doubles(output))

        return keep

    def before(self) -> None:
        self.old = {name: own(layer) for name, layer in self.layers.items()}
        self.grads = {
            name: [(n, doubles(p.grad)) for n, p in layer.named_parameters(recurse=False) if p.grad is not None]
            for name, layer in self.layers.items()
        }

    def after(self) -> None:
        with np.errstate(all="ignore"):
            self.steps.append({name: self._signals(name, layer) for name, layer in self.layers.items()})
        self.outputs = {}

    def _signals(self, name: str, layer: nn.Module) -> dict[str, float]:
        old, new = self.old[name], own(layer)
        signals = {"weight_norm": float(np.linalg.norm(old))}
        grads = [g for _, g in self.grads[name]]
        if grads:
            signals["grad_norm"] = float(np.linalg.norm(np.concatenate([g.ravel() for g in grads])))
            if np.any(old):
                signals["update_ratio"] = float(np.linalg.norm(new - old) / np.linalg.norm(old))
        outputs = self.outputs.get(name)
        if outputs:
            everything = np.concatenate([o.ravel() for o in outputs])
            signals["activation_mean"] = float(everything.mean())
            signals["activation_variance"] = float(everything.var())
        if grads or outputs:
            seen = [*grads, *(outputs or [])]
            signals["nonfinite"] = float(sum(np.count_nonzero(~np.isfinite(x)) for x in seen))
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d) and grads:
            dead = self._dead(layer, dict(self.grads[name]))
            if outputs or dead < 1:
                signals["dead_share"] = dead
        return signals

    def _dead(self, layer: nn.Module, grads: dict[str, npt.NDArray[np.float64]]) -> float:
        alive = np.zeros(layer.bias.shape[0] if layer.bias is not None else _units(layer), dtype=bool)  # type: ignore[index]
        for name, grad in grads.items():
            for unit in range(len(alive)):
                if name == "bias":
                    alive[unit] |= grad[unit] != 0
                elif isinstance(layer, nn.ConvTranspose1d):
                    per_group = layer.out_channels // layer.groups
                    group, place = divmod(unit, per_group)
                    size = layer.in_channels // layer.groups
                    alive[unit] |= bool(grad[group * size : (group + 1) * size, place].any())
                else:
                    alive[unit] |= bool(grad[unit].any())
        return float((~alive).mean())


def _units(layer: nn.Module) -> int:
    units = getattr(layer, "out_features", None) or layer.out_channels
    assert isinstance(units, int)
    return units


def doubles(tensor: Tensor) -> npt.NDArray[np.float64]:
    tensor = tensor.detach()
    tensor = tensor.to_dense() if tensor.is_sparse else tensor
    return tensor.double().numpy().copy()


def own(layer: nn.Module) -> npt.NDArray[np.float64]:
    return np.concatenate([doubles(p).ravel() for p in layer.parameters(recurse=False)])


def gradient_of(layer: nn.Module) -> Tensor:
    gradient = layer.get_parameter("weight").grad
    assert gradient is not None
    return gradient


def norm_of_gradients(layer: nn.Module) -> float:
    return math.sqrt(sum(float(p.grad.square().sum()) for p in layer.parameters() if p.grad is not None))


@contextmanager
def watching(
    model: nn.Module, optimizer: torch.optim.Optimizer, way: Links = host_way, every: int = 1
) -> Iterator[list[LayerSample]]:
    samples: list[LayerSample] = []
    with mock.patch.object(planning, "library", return_value=None) if way is numpy_way else nullcontext():
        watch = Watch(model, optimizer, every, samples.append, link=way)
        yield samples
        watch.close()


def compare(samples: list[LayerSample], reference: Reference, *, rtol: float = 2e-5) -> None:
    assert len(samples) == len(reference.steps)
    for sample, truth in zip(samples, reference.steps, strict=True):
        assert sample.layers == tuple(truth)
        for name, vector in sample.signals.items():
            expected = [truth[layer].get(name) for layer in sample.layers]
            if vector is None:
                assert all(value is None for value in expected), (name, expected)
                assert name not in sample.missing
                continue
            assert vector.dtype == np.float32
            assert vector.shape == (len(sample.layers),)
            absent = [i for i, value in enumerate(expected) if value is None]
            assert sample.missing.get(name, []) == absent, name
            scale = [1.0 if n is None else n for n in (t.get("activation_variance") for t in truth.values())]
            for i, value in enumerate(expected):
                if value is not None:
                    with np.errstate(all="ignore"):
                        rounded = np.float32(value)
                    if name.startswith("activation") and not np.isfinite(rounded):
                        assert not np.isfinite(vector[i])  # the moments of infinities depend on the order
                        continue
                    # A mean is exact to the spread of what it is the mean of.
                    slack = 2e-6 * math.sqrt(abs(scale[i])) if name == "activation_mean" else 1e-30
                    np.testing.assert_allclose(vector[i], rounded, rtol=rtol, atol=slack, err_msg=f"{name} {i}")


class Functional(nn.Module):
    """ReLU as a function, a layer used twice, one that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.twice = nn.Linear(8, 8, bias=False)
        self.unused = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.twice(F.relu(self.twice(F.relu(self.first(x)))))) * self.scale


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU]) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.inner = kind(6, 5, num_layers=2, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.inner(self.embed(x))[0])
        return out


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(self.attention(x, x, x)[0])
        return out


def mlp() -> tuple[nn.Module, Tensor]:
    inner = [part for _ in range(4) for part in (nn.Linear(6, 6), nn.ReLU())]
    return nn.Sequential(*inner, nn.LayerNorm(6), nn.Linear(6, 2, bias=False)), torch.randn(5, 6)


def inplace() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.BatchNorm1d(6)), torch.randn(7, 6)


def convolutions() -> tuple[nn.Module, Tensor]:
    return (
        nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(2), nn.Conv1d(4, 6, 3, groups=2),
            nn.ReLU(), nn.ConvTranspose1d(6, 4, 2, groups=2),
        ),
        torch.randn(3, 2, 6, 6),
    )  # fmt: skip


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "mlp": mlp,
    "inplace": inplace,
    "convolutions": convolutions,
    "functional": lambda: (Functional(), torch.randn(4, 6)),
    "lstm": lambda: (Recurrent(nn.LSTM), torch.randint(0, 11, (3, 4))),
    "gru": lambda: (Recurrent(nn.GRU), torch.randint(0, 11, (3, 4))),
    "attention": lambda: (Attention(), torch.randn(3, 4, 8)),
    "a layer alone": lambda: (nn.Linear(4, 3), torch.randn(6, 4)),
    "wide": lambda: (nn.Sequential(nn.Linear(97, 131), nn.ReLU(), nn.Linear(131, 173)), torch.randn(61, 97)),
}


@both_ways
@SLOW
@given(
    name=st.sampled_from(list(MODELS)),
    seed=st.integers(0, 2**20),
    rate=st.sampled_from([1e-4, 1e-2, 1.0]),
    size=st.sampled_from([1e-6, 1.0, 1e4]),
    adam=st.booleans(),
)
@example(
    name="convolutions", seed=58, rate=0.01, size=1e-6, adam=False
)  # a bias gradient that cancels, then a dead unit
def test_every_signal_equals_a_float64_reference(
    way: Links, name: str, seed: int, rate: float, size: float, adam: bool
) -> None:
    torch.manual_seed(seed)
    model, inputs = MODELS[name]()
    if inputs.is_floating_point():
        inputs = inputs * size
    optimizer: torch.optim.Optimizer
    optimizer = torch.optim.Adam(model.parameters(), rate) if adam else torch.optim.SGD(model.parameters(), rate)
    with watching(model, optimizer, way) as samples:
        reference = Reference(model, optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
    # What changes by less than float32 resolves is rounded by the optimizer, not by us: both see the same weights.
    compare(samples, reference)


@both_ways
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_are_measured_without_losing_their_updates(way: Links, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3)).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), 1e-9 if dtype is torch.float64 else 0.1)
    with watching(model, optimizer, way) as samples:
        reference = Reference(model, optimizer)
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.randn(5, 6, dtype=dtype)).square().mean().backward()
            optimizer.step()
    compare(samples, reference)


@both_ways
def test_gradients_that_accumulate_are_measured_at_the_step_and_outputs_over_all_passes(way: Links) -> None:
    torch.manual_seed(2)
    model, _ = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watching(model, optimizer, way) as samples:
        reference = Reference(model, optimizer)
        for _ in range(2):
            optimizer.zero_grad()
            for rows in (3, 5, 1):
                model(torch.randn(rows, 6)).square().mean().backward()
            optimizer.step()
    compare(samples, reference)


@both_ways
def test_evaluation_and_no_grad_passes_leave_activations_alone(way: Links) -> None:
    torch.manual_seed(3)
    model, inputs = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watching(model, optimizer, way) as samples:
        reference = Reference(model, optimizer)
        for _ in range(2):
            model.eval()
            model(inputs * 100)
            model.train()
            with torch.no_grad():
                model(inputs * 100)
            with torch.inference_mode():
                model(inputs * 100)
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
    compare(samples, reference)


@both_ways
def test_frozen_layers_keep_their_weight_norm_and_lose_what_gradients_tell(way: Links) -> None:
    torch.manual_seed(4)
    model, inputs = mlp()
    for parameter in model[2].parameters():  # type: ignore[index]
        parameter.requires_grad_(False)
    model[4].bias.requires_grad_(False)  # type: ignore[index]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.01)
    with watching(model, optimizer, way) as samples:
        reference = Reference(model, optimizer)
        for _ in range(2):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
    compare(samples, reference)
    assert samples[0].missing["grad_norm"] == [1]
    assert samples[0].missing["update_ratio"] == [1]


@both_ways
def test_a_nan_gradient_arrives_as_nan_and_is_counted(way: Links) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watching(model, optimizer, way) as samples:
        model(torch.ones(1, 2)).sum().backward()
        gradient_of(model[0])[0, 0] = math.nan
        gradient_of(model[1])[:] = math.inf
        optimizer.step()
    norms, counts = samples[0].signals["grad_norm"], samples[0].signals["nonfinite"]
    assert norms is not None and counts is not None
    assert math.isnan(norms[0])
    assert math.isinf(norms[1])
    assert counts.tolist() == [1.0, 4.0]
    assert samples[0].missing == {}


@both_ways
def test_nonfinite_outputs_are_counted(way: Links) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watching(model, optimizer, way) as samples:
        model(torch.tensor([[1.0, math.inf], [1.0, 1.0]]))
        optimizer.step()
    counts = samples[0].signals["nonfinite"]
    assert counts is not None
    assert counts.tolist() == [2.0, 2.0]
    assert samples[0].signals["grad_norm"] is None


@both_ways
@pytest.mark.parametrize("size", [1e20, 1e-25, 3e38, 1e-40])
def test_norms_beyond_the_square_of_float32_are_right(way: Links, size: float) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1, bias=False))
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    gradient_of(model[1])[0, 0] = size
    with watching(model, optimizer, way) as samples:
        optimizer.step()
    norms = samples[0].signals["grad_norm"]
    assert norms is not None
    np.testing.assert_allclose(norms, np.array([0.0, size], dtype=np.float32), rtol=1e-6)


@both_ways
def test_dead_units_are_those_that_fire_for_no_input(way: Links) -> None:
    torch.manual_seed(5)
    model = Functional()
    with torch.no_grad():
        model.first.bias[:3] = -1000.0
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with watching(model, optimizer, way) as samples:
        for rows in (64, 64, 8):
            optimizer.zero_grad()
            model(torch.randn(rows, 6)).square().mean().backward()
            optimizer.step()
    for sample in samples:
        shares = sample.signals["dead_share"]
        assert shares is not None
        assert shares[sample.layers.index("first")] == np.float32(3 / 8)
        assert sample.missing["dead_share"] == [sample.layers.index("(root)"), sample.layers.index("unused")]


@both_ways
def test_a_bias_gradient_that_cancels_does_not_make_a_unit_dead(way: Links) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    with watching(model, optimizer, way) as samples:
        (model(torch.tensor([[1.0], [3.0]])) * torch.tensor([[1.0], [-1.0]])).sum().backward()
        assert model.bias.grad == 0
        optimizer.step()
    shares = samples[0].signals["dead_share"]
    assert shares is not None
    assert shares.tolist() == [0.0]


@both_ways
def test_a_layer_whose_gradients_were_zeroed_and_that_did_not_run_is_not_called_dead(way: Links) -> None:
    model = Functional()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with watching(model, optimizer, way) as samples:
        model(torch.randn(4, 6)).sum().backward()
        optimizer.step()
    unused = samples[0].layers.index("unused")
    assert unused in samples[0].missing["dead_share"]
    assert unused in samples[0].missing["activation_mean"]
    norms = samples[0].signals["grad_norm"]
    assert norms is not None and norms[unused] == 0.0
    assert "grad_norm" not in samples[0].missing


@pytest.mark.parametrize("way", [host_way, numpy_way])
def test_sparse_gradients_are_measured_on_the_host(way: Links) -> None:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watching(model, optimizer, way) as samples:
        reference = Reference(model, optimizer)
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.tensor([1, 1, 3, 8])).square().mean().backward()
            optimizer.step()
    compare(samples, reference)


@pytest.mark.parametrize("way", [host_way, numpy_way])
def test_a_first_sparse_gradient_from_a_closure_is_measured_and_so_is_its_update(way: Links) -> None:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    reference = Reference(model, optimizer)

    def closure() -> float:
        optimizer.zero_grad()
        loss: Tensor = model(torch.tensor([1, 1, 3, 8])).square().mean()
        torch.autograd.backward(loss)
        reference.grads = {
            name: [(n, doubles(p.grad)) for n, p in layer.named_parameters(recurse=False) if p.grad is not None]
            for name, layer in reference.layers.items()
        }
        return float(loss.detach())

    with watching(model, optimizer, way) as samples:
        for _ in range(3):
            optimizer.step(closure)
    compare(samples, reference)


def test_a_model_too_large_for_one_buffer_is_measured_parameter_by_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(11)
    monkeypatch.setattr(host, "LARGEST_FLAT", 100)
    monkeypatch.setattr(native, "LARGEST", 50)
    model, inputs = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    with watching(model, optimizer) as samples:
        reference = Reference(model, optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
    compare(samples, reference)


@pytest.mark.parametrize("way", [host_way, numpy_way])
def test_outputs_too_long_for_one_product_are_measured(way: Links) -> None:
    torch.manual_seed(12)
    model = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for rows in (256, 300, 2000):
        with watching(model, optimizer, way) as samples:
            reference = Reference(model, optimizer)
            for _ in range(3):
                optimizer.zero_grad()
                model(torch.randn(rows, 4)).square().mean().backward()
                optimizer.step()
        compare(samples, reference)


@both_ways
def test_weights_that_start_at_zero_have_no_update_ratio(way: Links) -> None:
    model = nn.Linear(2, 2)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watching(model, optimizer, way) as samples:
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert samples[0].signals["update_ratio"] is None
    assert samples[0].signals["weight_norm"] is not None


@pytest.mark.parametrize("way", [host_way, numpy_way])
def test_an_output_that_is_changed_in_place_is_measured_before_the_change(way: Links) -> None:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watching(model, optimizer, way) as samples:
        reference = Reference(model, optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(6, 4)).square().mean().backward()
            optimizer.step()
    compare(samples, reference)


@both_ways
def test_an_output_that_begins_to_be_changed_in_place_is_missing_at_most_once(way: Links) -> None:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watching(model, optimizer, way) as samples:
        reference = Reference(model, optimizer)
        for step in range(4):
            if step == 1:
                model[1] = nn.ReLU(inplace=True)
            optimizer.zero_grad()
            model(torch.randn(6, 4)).square().mean().backward()
            optimizer.step()
    if samples[1].missing:  # the outputs wait until the forward pass has returned
        assert samples[1].missing["activation_mean"] == [0]
        compare([*samples[:1], *samples[2:]], _without(reference, 1))
    else:
        compare(samples, reference)


def _without(reference: Reference, step: int) -> Reference:
    del reference.steps[step]
    return reference


@both_ways
def test_a_closure_is_measured_as_its_last_call_left_it(way: Links) -> None:
    torch.manual_seed(8)
    model, inputs = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    kept: list[float] = []
    moved: list[float] = []

    def step(*args: Any, **kwargs: Any) -> None:
        old = own(model.get_submodule("0"))
        optimizer.step(*args, **kwargs)
        moved.append(float(np.linalg.norm(own(model.get_submodule("0")) - old) / np.linalg.norm(old)))

    def closure() -> float:
        optimizer.zero_grad()
        loss: Tensor = model(inputs).square().mean()
        torch.autograd.backward(loss)
        kept.append(norm_of_gradients(model.get_submodule("0")))
        return float(loss.detach())

    with watching(model, optimizer, way) as samples:
        step(closure)
        step(closure=closure)
    norms = [s.signals["grad_norm"] for s in samples]
    np.testing.assert_allclose([n[0] for n in norms if n is not None], kept, rtol=1e-5)
    ratios = [s.signals["update_ratio"] for s in samples]
    np.testing.assert_allclose([r[0] for r in ratios if r is not None], moved, rtol=1e-5)
    assert all(s.signals["activation_mean"] is not None for s in samples)


@both_ways
@pytest.mark.parametrize("fused", [False, True])
def test_scaled_gradients_are_measured_unscaled_and_skipped_steps_give_no_sample(way: Links, fused: bool) -> None:
    torch.manual_seed(9)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    inputs = torch.randn(5, 4)
    with watching(model, optimizer, way) as samples:
        for poison in (False, True, False):
            optimizer.zero_grad()
            loss = model(inputs).square().mean()
            expected = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
            truth = math.sqrt(sum(float(g.double().square().sum()) for g in expected))
            scaler.scale(loss * (math.inf if poison else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
    assert len(samples) == 2
    norms = samples[-1].signals["grad_norm"]
    assert norms is not None
    np.testing.assert_allclose(norms, [truth], rtol=1e-5)


@both_ways
def test_only_what_the_optimizer_moves_has_gradients_and_updates(way: Links) -> None:
    torch.manual_seed(10)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    first = torch.optim.SGD(model[0].parameters(), 0.1)
    second = torch.optim.Adam(model[2].parameters(), 0.1)
    with watching(model, first, way) as of_first, watching(model, second, way) as of_second:
        for _ in range(2):
            model(torch.randn(3, 4)).square().mean().backward()
            first.step()
            second.step()
            model.zero_grad()
    assert [s.missing["grad_norm"] for s in of_first] == [[1], [1]]
    assert [s.missing["update_ratio"] for s in of_second] == [[0], [0]]
    for sample in of_first:
        assert sample.signals["weight_norm"] is not None and "weight_norm" not in sample.missing
