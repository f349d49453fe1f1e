"""When a watch ends by itself, what it holds on to until then, and what does not end it."""

import gc
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from morphogen.bus.broker import Endpoint
from morphogen.bus.settings import Settings
from morphogen.producers import record
from morphogen.producers.watch import LayerSample, Watch, activations
from morphogen.producers.watch import watch as planning
from morphogen.schemas import Event, LayerHealth


class Arrived:
    def query(self) -> bool:
        return True


class AtOnce:
    """A way from a device whose values are there at once."""

    def fetch(self, values: Tensor) -> tuple[Tensor, Arrived]:
        return values.clone(), Arrived()


@pytest.fixture(params=["compiled", "numpy", "device"])
def options(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Watch by each of the three ways of reading."""
    link = AtOnce() if request.param == "device" else None
    way = mock.patch.object(planning, "library", return_value=None) if request.param == "numpy" else nullcontext()
    with way, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield {"link": lambda device: link}


def model_of() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(3, 4)).square().mean().backward()
    optimizer.step()


def slots(model: nn.Module) -> int:
    return sum("_compiled_call_impl" in module.__dict__ for module in model.modules())


def test_an_optimizer_that_is_gone_ends_its_watch(options: dict[str, Any]) -> None:
    model, samples = model_of(), list[LayerSample]()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = Watch(model, optimizer, 1, samples.append, **options)
    step(model, optimizer)
    assert slots(model)
    gone = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert gone() is None
    assert not slots(model)
    watch.settle()
    assert [sample.step for sample in samples] == [1]
    watch.close()


def test_an_optimizer_that_another_thread_collects_leaves_the_model_after_its_next_forward_pass() -> None:
    model, samples = model_of(), list[LayerSample]()
    held = [torch.optim.SGD(model.parameters(), 0.1)]
    watch = Watch(model, held[0], 1, samples.append)
    step(model, held[0])
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert slots(model), "the thread of the model may be running it"
    model(torch.randn(3, 4))
    assert not slots(model)
    watch.settle()
    assert [sample.step for sample in samples] == [1]


@pytest.mark.parametrize("which", ["model", "optimizer"])
def test_what_goes_waits_for_nobody_who_takes_its_samples(which: str) -> None:
    held: dict[str, Any] = {"model": model_of()}
    held["optimizer"] = torch.optim.SGD(held["model"].parameters(), 0.1)
    taking, lock, samples = threading.Event(), threading.Lock(), list[LayerSample]()

    def take(sample: LayerSample) -> None:
        taking.set()
        if lock.acquire(timeout=20.0):
            lock.release()
            samples.append(sample)

    watch = Watch(held["model"], held["optimizer"], 1, take)
    backlog = watch._backlog
    with lock:
        step(held["model"], held["optimizer"])
        assert taking.wait(10.0)
        step(held["model"], held["optimizer"])
        del held[which]
        gc.collect()
    watch.settle()
    assert [sample.step for sample in samples] == [1, 2]
    assert backlog._thread is not None
    backlog._thread.join(10.0)
    assert not backlog._thread.is_alive()


def test_a_run_that_is_dropped_inside_a_step_leaves_the_model() -> None:
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = Watch(model, optimizer)
    with mock.patch.object(watch._backlog, "add", side_effect=lambda *_: watch.leave()):
        step(model, optimizer)
    assert not slots(model)
    watch.close()


def test_what_the_forward_passes_between_two_steps_gave_is_joined(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs: list[Tensor] = []
    kept: list[dict[str, Any]] = []
    for many in (2, 1000):
        monkeypatch.setattr(activations, "MANY", many)
        monkeypatch.setattr("morphogen.producers.watch.device.MANY", many)
        model, samples = model_of(), list[LayerSample]()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        watch = Watch(model, optimizer, 1, samples.append, **options)
        for passes in (1, 1, 20, 21):
            optimizer.zero_grad()
            outputs.clear()
            for rows in range(1, passes + 1):
                inputs = torch.randn(rows, 4)
                outputs.append(
                    model[0](inputs).detach() if rows % 7 == 0 else nn.functional.linear(inputs, *model[0].parameters())
                )
                if rows % 7:
                    model(inputs).square().mean().backward()
            optimizer.step()
            everything = torch.cat([output.detach() for output in outputs]).double()
            watch.settle()
            mean, variance = (samples[-1].signals[f"activation_{name}"] for name in ("mean", "variance"))
            assert mean is not None
            assert variance is not None
            np.testing.assert_allclose(mean[0], everything.mean(), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(variance[0], everything.var(correction=0), rtol=1e-4)
        watch.close()
        kept.append(samples[-1].signals)
    for name, values in kept[0].items():
        np.testing.assert_allclose(values, kept[1][name], rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("runs", [lambda model: model, lambda model: model[0]])
def test_an_optimizer_that_never_steps_lets_nothing_pile_up(
    options: dict[str, Any], runs: Callable[[nn.Sequential], nn.Module]
) -> None:
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = Watch(model, optimizer, **options)
    for _ in range(3):
        step(model, optimizer)
    (taken,) = (meter.activations for _, meter in watch._parts)
    for _ in range(400):
        runs(model)(torch.randn(3, 4))
    held = [getattr(taken, "launched", ()), taken.waiting]
    if isinstance(taken, activations.HostActivations):
        held += [taken._seen.sums, taken._seen.measured, taken._first]
    assert max(map(len, held)) <= 2 * activations.MANY
    watch.close()


def forward(model: nn.Module) -> None:
    model(torch.randn(2, 4))


def fake(model: nn.Module) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        forward(model)


def vectorized(model: nn.Module) -> None:
    torch.vmap(lambda x: model(x))(torch.randn(3, 2, 4))


def differentiated(model: nn.Module) -> None:
    parameters = dict(model.named_parameters())
    torch.func.grad(lambda p: torch.func.functional_call(model, p, (torch.randn(2, 4),)).sum())(parameters)


class Wrapper(Tensor):
    """Values that lie in another tensor."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Wrapper":
        made: Wrapper = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore[attr-defined]
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        plain = torch.utils._pytree.tree_map_only(Wrapper, lambda x: x.inner, (args, kwargs or {}))
        return torch.utils._pytree.tree_map_only(Tensor, Wrapper, func(*plain[0], **plain[1]))


def wrapped(model: nn.Module) -> None:
    model(Wrapper(torch.randn(2, 4)))


@pytest.mark.parametrize("warm", [0, 3])
@pytest.mark.parametrize("passes", [fake, vectorized, differentiated, wrapped])
def test_a_forward_pass_over_tensors_without_memory_changes_nothing(
    options: dict[str, Any], passes: Callable[[nn.Module], None], warm: int
) -> None:
    means = []
    for between in (passes, None):
        model, samples = model_of(), list[LayerSample]()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        watch = Watch(model, optimizer, 1, samples.append, **options)
        for _ in range(warm):
            step(model, optimizer)
        if between is not None:
            between(model)
        torch.manual_seed(1)
        for _ in range(3):
            step(model, optimizer)
        watch.close()
        assert [sample.step for sample in samples] == list(range(1, warm + 4))
        means.append([sample.signals["activation_mean"] for sample in samples])
    if passes in (fake, vectorized, wrapped):  # torch.func.grad computes with the numbers themselves
        np.testing.assert_allclose(np.array(means[0]), np.array(means[1]), rtol=1e-5)


def test_what_was_measured_before_an_error_is_emitted_and_the_error_is_told() -> None:
    model, samples, told = model_of(), list[LayerSample](), list[str]()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = Watch(model, optimizer, 1, samples.append, stopped=told.append)
    watch._backlog.age = 60.0
    step(model, optimizer)
    step(model, optimizer)
    with mock.patch.object(watch, "_look", side_effect=RuntimeError("no more")), pytest.warns(RuntimeWarning):
        step(model, optimizer)
    assert [sample.step for sample in samples] == [1, 2]
    assert told == ["RuntimeError: no more"]


def test_a_watch_that_stops_is_counted_by_its_run(broker: Endpoint, settings: Settings) -> None:
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with record("stops", settings=settings) as run:
        run.watch(model, optimizer)
        with mock.patch.object(Watch, "_look", side_effect=RuntimeError("no more")), pytest.warns(RuntimeWarning):
            step(model, optimizer)
        assert run.rejected == 1


def test_the_health_of_each_step_has_the_step_that_the_job_says(broker: Endpoint, settings: Settings) -> None:
    heard: list[int | None] = []

    def hears(event: Event, step: int | None) -> None:
        if isinstance(event, LayerHealth):
            heard.append(step)

    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with record("epochs", settings=settings) as run:
        run.watch(model, optimizer)
        run.subscribe(hears)
        for epoch in range(1, 4):
            for _ in range(4):
                step(model, optimizer)
            run.log(loss=1.0, step=epoch)
            run.log(checked=1.0)
        step(model, optimizer)
        run.flush()
        assert heard == [1] * 4 + [2] * 4 + [3] * 4 + [4]
