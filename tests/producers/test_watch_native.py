"""The compiled routine beside torch: the same numbers from any tensor, and never memory that is not the tensor's."""

import ctypes
import hashlib
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from morphogen.producers.watch import LayerSample, Watch, library, native
from morphogen.producers.watch import watch as planning

routine = library.library()
pytestmark = pytest.mark.skipif(routine is None, reason="the routine was not compiled here")

KINDS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
ODD = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, 5e-39, 1e-30, 65504.0, 3e38]


def test_the_library_was_built_from_the_source_beside_it() -> None:
    source = Path(library.__file__).with_name("_reading.c")
    assert routine is not None
    assert routine.SOURCE == hashlib.sha256(source.read_bytes()).hexdigest(), "build it again: pip install -e ."


def test_a_library_of_another_version_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "VERSION", -1)
    library.library.cache_clear()
    try:
        assert library.library() is None
    finally:
        library.library.cache_clear()


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any tensor of a layer: kinds, shapes, strides, values."""
    shape = draw(st.lists(st.integers(0, 40), max_size=3))
    seed = draw(st.integers(0, 2**16))
    scale = 10.0 ** draw(st.integers(-30, 30))
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator, dtype=torch.float64) * scale + draw(st.sampled_from([0, scale]))
    if values.numel() and draw(st.booleans()):
        for value in draw(st.lists(st.sampled_from(ODD), max_size=4)):
            values.view(-1)[draw(st.integers(0, values.numel() - 1))] = value
    tensor = values.to(draw(st.sampled_from(KINDS)))
    if draw(st.booleans()) and tensor.dim() >= 2:
        tensor = tensor.transpose(0, 1)
    if draw(st.booleans()) and tensor.dim():
        tensor = tensor[::2]
    if draw(st.booleans()) and tensor.dim() and len(tensor):
        tensor = tensor[:1].expand(3, *tensor.shape[1:])
    return tensor


def nothing() -> None:
    """Stand for a library that was not built."""


class Says(nn.Module):
    """A layer that puts out what it is told to, and lets one weight learn from it."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.says: Tensor | None = None

    def forward(self) -> Tensor | None:
        return self.says


def measured(compiled: bool, act: Callable[[nn.Module, torch.optim.Optimizer], None], model: nn.Module) -> LayerSample:
    samples: list[LayerSample] = []
    optimizer = torch.optim.SGD(model.parameters(), 0.25)
    with pytest.MonkeyPatch.context() as patch:
        if not compiled:
            patch.setattr(planning, "library", nothing)
        watch = Watch(model, optimizer, 1, samples.append)
        act(model, optimizer)
        watch.close()
    (sample,) = samples
    return sample


def assert_same(one: LayerSample, other: LayerSample, slack: float) -> None:
    assert one.missing == other.missing
    for name, values in one.signals.items():
        expected = other.signals[name]
        if values is None or expected is None:
            assert values is expected
        elif name.startswith("activation") and not np.isfinite(expected).all():
            assert not np.isfinite(values).all()  # the moments of infinities depend on the order
        else:
            atol = slack if name == "activation_mean" else 0.0
            if name == "activation_variance":  # what sums of squares, in doubles, leave of equal values
                mean = other.signals["activation_mean"]
                assert mean is not None
                atol = float(8 * np.finfo(np.float64).eps * np.square(mean.astype(np.float64)).max(initial=0.0))
            np.testing.assert_allclose(values.astype(float), expected.astype(float), rtol=2e-6, atol=atol, err_msg=name)


@settings(max_examples=300, deadline=None)
@example(output=torch.full((3,), 15.41), weight=torch.tensor(1.0), gradient=None)
@given(output=tensors(), weight=tensors(), gradient=st.none() | st.integers(0, 2**16))
def test_any_output_weight_and_gradient_are_measured_as_torch_does(
    output: Tensor, weight: Tensor, gradient: int | None
) -> None:
    def act(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        assert isinstance(model, Says)
        model.says = output
        model()
        if gradient is not None:
            generator = torch.Generator().manual_seed(gradient)
            drawn = torch.randn(weight.shape, generator=generator).mul(gradient % 3).to(weight.dtype)
            model.weight.grad = drawn
        optimizer.step()

    slack = 2e-6 * float(output.double().std(correction=0)) if output.numel() else 0.0
    one, other = (measured(compiled, act, Says(weight.clone())) for compiled in (True, False))
    assert_same(one, other, slack if math.isfinite(slack) else 0.0)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_every_value_of_half_precision_is_widened_exactly(kind: torch.dtype) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(kind)
    layer = library.LayerStruct()
    assert routine is not None
    for value in every[:: 7 if kind is torch.float16 else 11]:
        ctypes.memset(ctypes.addressof(layer), 0, ctypes.sizeof(layer))
        assert routine.output(ctypes.addressof(layer), value.reshape(1))
        assert layer.mean == float(value) or (math.isnan(layer.mean) and math.isnan(float(value)))
        assert layer.bad_outputs == (not math.isfinite(float(value)))


@pytest.mark.parametrize("elements", [300_000, 1_000])
def test_gradients_and_weights_long_and_short_are_read(elements: int) -> None:
    layer = nn.Linear(elements, 1)
    optimizer = torch.optim.SGD(layer.parameters(), 0.5)
    samples: list[LayerSample] = []
    watch = Watch(layer, optimizer, 1, samples.append)
    assert isinstance(watch._parts[0][1], native.NativeMeter)
    before = torch.cat([p.detach().flatten() for p in layer.parameters()]).double().norm()
    layer(torch.randn(2, elements)).sum().backward()
    assert layer.weight.grad is not None
    norm = torch.cat([layer.weight.grad.flatten(), torch.full((1,), 2.0)]).double().norm()
    optimizer.step()
    watch.close()
    for name, expected in (("grad_norm", norm), ("weight_norm", before)):
        values = samples[0].signals[name]
        assert values is not None
        np.testing.assert_allclose(values[0], expected, rtol=2e-6)


def swap_for_nothing(weight: nn.Parameter) -> None:
    weight.data = torch.empty(0)


def swap_for_less(weight: nn.Parameter) -> None:
    weight.data = torch.ones(2, 4)


def take_the_memory(weight: nn.Parameter) -> None:
    weight.untyped_storage().resize_(0)


def repeat_one(weight: nn.Parameter) -> None:
    weight.data = torch.ones(1).expand(4, 4)


def half(weight: nn.Parameter) -> None:
    weight.data = weight.data.to(torch.bfloat16)


@pytest.mark.parametrize("change", [swap_for_nothing, swap_for_less, take_the_memory, repeat_one, half])
@pytest.mark.parametrize("when", ["before", "inside"])
@pytest.mark.filterwarnings("ignore:watch stopped")
def test_a_weight_whose_memory_goes_away_is_never_read(change: Callable[[nn.Parameter], None], when: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    samples: list[LayerSample] = []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = Watch(model, optimizer, 1, samples.append)
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    weight = model.get_submodule("0").get_parameter("weight")
    for p in model.parameters():
        p.grad = None
    if when == "before":
        change(weight)
        optimizer.step()
    else:
        optimizer.step(lambda: change(weight))
    watch.close()
    assert samples


@pytest.fixture
def gradients() -> list[Tensor]:
    return [
        torch.ones(1).expand(4, 4),
        torch.randn(4, 8)[:, ::2],
        torch.randn(4, 4).t(),
        torch.randn(4, 4).to_sparse(),
        torch._efficientzerotensor(4, 4),
        nn.Parameter(torch.randn(4, 4)),
    ]


def test_gradients_of_any_layout_are_measured(gradients: list[Tensor]) -> None:
    for gradient in gradients:
        layer = nn.Linear(4, 4, bias=False)
        samples: list[LayerSample] = []
        optimizer = torch.optim.SGD(layer.parameters(), 0.0)
        watch = Watch(layer, optimizer, 1, samples.append)
        layer.weight.grad = gradient
        optimizer.step()
        watch.close()
        norms = samples[0].signals["grad_norm"]
        assert norms is not None
        np.testing.assert_allclose(norms[0], float(gradient.to_dense().detach().double().norm()), rtol=1e-6)


def test_a_gradient_that_is_resized_in_place_ends_nothing_but_its_measurement() -> None:
    layer = nn.Linear(4, 4, bias=False)
    samples: list[LayerSample] = []
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    watch = Watch(layer, optimizer, 1, samples.append)
    layer(torch.randn(2, 4)).sum().backward()
    assert layer.weight.grad is not None
    layer.weight.grad.resize_(1)
    with pytest.warns(RuntimeWarning, match="watch stopped"):
        optimizer.step()
    watch.close()


class Resting(torch.optim.SGD):
    """Steps nowhere, but calls the hooks of a step: torch's own step does not bear that gradients go while it runs."""

    def step(self, closure: Any = None) -> None:
        """Do nothing."""


def test_other_threads_may_run_and_collect_while_a_large_layer_is_read() -> None:
    layer = nn.Linear(1000, 1000)
    samples: list[LayerSample] = []
    optimizer = Resting(layer.parameters(), 0.1)
    watch = Watch(layer, optimizer, 1, samples.append)
    over, torch_writes = threading.Event(), threading.Lock()  # a backward pass does not bear it either

    def disturb() -> None:
        while not over.is_set():
            for p in layer.parameters():
                with torch_writes:
                    gone = p.grad  # let go of below: torch's setter leaves what it frees in reach meanwhile
                    p.grad = None
                del gone

    thread, interval = threading.Thread(target=disturb), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # many turns a second: more to be disturbed by, and less to wait for
    thread.start()
    try:
        for _ in range(30):
            output = layer(torch.randn(2, 1000)).sum()
            with torch_writes:
                output.backward()
            optimizer.step()
    finally:
        over.set()
        thread.join()
        sys.setswitchinterval(interval)
        watch.close()
    assert len(samples) == 30


def test_a_forked_child_measures_its_own_steps() -> None:
    layer = nn.Linear(4, 4)
    samples: list[LayerSample] = []
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    watch = Watch(layer, optimizer, 1, samples.append)

    def step() -> None:
        optimizer.zero_grad()
        layer(torch.ones(2, 4)).sum().backward()
        optimizer.step()

    step()
    child = os.fork()
    if child == 0:
        samples.clear()
        step()
        watch.flush()
        os._exit(0 if len(samples) == 1 and not samples[0].missing else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    step()
    watch.close()
    assert [s.step for s in samples] == [1, 2]


def test_a_layer_that_calls_itself_counts_each_of_its_outputs() -> None:
    class Again(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor, depth: int = 3) -> Tensor:
            out: Tensor = self.inner(x)
            return self(out, depth - 1) if depth else out

    model = Again()
    samples: list[LayerSample] = []
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = Watch(model, optimizer, 1, samples.append)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    watch.close()
    assert samples[0].missing == {}


def test_only_tensors_that_lie_in_one_piece_on_the_cpu_are_read_in_place() -> None:
    def mean(tensor: Tensor) -> float | None:
        place = (library.LayerStruct * 1)()
        assert routine is not None
        read = routine.output(ctypes.addressof(place[0]), tensor)
        assert not sys.exc_info()[0]
        return place[0].mean if read else None

    three = torch.tensor([1.0, 2.0, 3.0])
    seen: list[float | None] = []
    torch.func.vmap(lambda row: (seen.append(mean(row)), row)[1])(torch.ones(2, 3))

    assert mean(three) == mean(three.clone().requires_grad_()) == mean(three.reshape(1, 3, 1)[:, :, ::2]) == 2.0
    assert mean(torch.tensor(4.0)) == 4.0
    assert mean(torch.zeros(0)) == 0.0
    others = [
        three.to_sparse(), three.to("meta"), three.to(torch.int64), three.to(torch.complex64), three[::2],
        torch.zeros(3, 2).t(), three.expand(2, 3), three.to_mkldnn(), three.as_subclass(Other),
    ]  # fmt: skip
    assert seen + [mean(other) for other in others] == [None] * 10


class Other(Tensor):
    """Somebody's own tensor, whose memory may mean anything."""


def test_what_layers_own_is_compared_by_identity() -> None:
    assert routine is not None
    one, two = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    owned: list[dict[str, object]] = [{"weight": one, "bias": None}, {}, {"weight": two}]
    ids = [id(one), id(None), id(two)]

    assert routine.same(owned, ids)
    assert routine.same([], [])
    assert not routine.same(owned, ids[:-1])
    assert not routine.same(owned, [*ids, id(one)])
    assert not routine.same([{"weight": nn.Parameter(torch.zeros(2))}, *owned[1:]], ids)
    for wrong in ((owned, tuple(ids)), ([1], ids), (owned, ["a"])):
        with pytest.raises(TypeError):
            routine.same(*wrong)  # type: ignore[arg-type]


def test_all_of_this_holds_for_a_torch_that_does_not_tell_of_its_tensors_by_functions() -> None:
    told = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)
    assert routine is not None
    assert bool(routine.EXCHANGE) == (told is not None)
    if told is None:
        pytest.skip("this torch is one")
    code = (
        "import sys, torch\n"
        "del torch.Tensor.__dlpack_c_exchange_api__\n"
        "import pytest\n"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-p', 'no:anyio', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", code, __file__], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed, 1 skipped" in done.stdout
