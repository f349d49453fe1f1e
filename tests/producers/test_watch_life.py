"""What a watch does to the model, the optimizer and the training loop around it: nothing that lasts."""

import copy
import gc
import io
import math
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from morphogen.producers.watch import LayerSample, Watch, backlog, calls


def model_of(width: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 1, inputs: Tensor | None = None) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(3, 4) if inputs is None else inputs).square().mean().backward()
        optimizer.step()


def watched(model: nn.Module, every: int = 1, **options: Any) -> tuple[torch.optim.Optimizer, list[LayerSample], Watch]:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    samples: list[LayerSample] = []
    return optimizer, samples, Watch(model, optimizer, every, samples.append, **options)


def until(reached: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def traces(model: nn.Module) -> list[str]:
    return [
        f"{name}.{key}"
        for name, module in model.named_modules()
        for key, value in module.__dict__.items()
        if "call_impl" in key or (key.endswith("_hooks") and value)
    ]


def test_every_tenth_step_is_measured_and_the_others_run_without_us() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model, 10)
    train(model, optimizer, 1)
    assert traces(model) == []
    train(model, optimizer, 24)
    watch.close()
    assert [s.step for s in samples] == [1, 11, 21]
    assert all(s.signals["activation_mean"] is not None and s.missing == {} for s in samples)


def test_the_step_provider_names_the_steps() -> None:
    model = model_of()
    names = iter((500, 700, 900))
    optimizer, samples, watch = watched(model, step_provider=lambda: next(names))
    train(model, optimizer, 3)
    watch.close()
    assert [s.step for s in samples] == [500, 700, 900]


@pytest.mark.parametrize("every", [0, -1, 2.5, math.nan, math.inf, True, "2", None])
def test_a_step_interval_that_is_no_whole_number_above_zero_is_refused(every: Any) -> None:
    model = model_of()
    with pytest.raises(ValueError, match="every must be a whole number of 1 or more, not "):
        watched(model, every)
    assert watched(model, np.int64(3))[2].every == 3  # type: ignore[arg-type]


def test_a_paced_watch_measures_a_few_steps_of_each_stretch_the_first_among_them() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model)
    watch.pace(4, 8)
    for stretch in (80, 80, 3, 3, 80):
        train(model, optimizer, stretch)
        watch.pace(4, 8)
    watch.close()

    found = [sample.step for sample in samples]
    assert [at for at in found if at <= 80] == list(range(1, 81, 8)), "how long a stretch is was not known yet"
    assert [at for at in found if at > 80] == [81, 101, 121, 141, 161, 164, *range(167, 247, 8)]


def test_a_watch_that_has_ended_may_be_paced() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model)
    watch.close()
    watch.pace(4, 8)
    train(model, optimizer)

    assert not samples


def test_close_takes_everything_away_and_may_be_called_again() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model)
    train(model, optimizer)
    watch.close()
    watch.close()
    assert traces(model) == []
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    train(model, optimizer)
    assert len(samples) == 1


def test_training_is_bit_for_bit_the_same_with_and_without_a_watch() -> None:
    def run(watch: bool) -> list[Tensor]:
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(inplace=True), nn.Linear(8, 2))
        torch.manual_seed(1)
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        optimizer = torch.optim.Adam(model.parameters())
        watcher = Watch(model, optimizer, 2) if watch else None
        train(model, optimizer, 5)
        if watcher:
            watcher.close()
        return [p.detach().clone() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(run(False), run(True), strict=True))


@pytest.mark.parametrize("between", [True, False])
def test_a_watched_model_is_pickled_copied_and_saved_as_if_nobody_watched(between: bool) -> None:
    model = model_of()
    optimizer, _, watch = watched(model)
    train(model, optimizer)
    if between:
        model(torch.randn(3, 4)).sum().backward()
    plain = model_of()
    plain.load_state_dict(model.state_dict())
    plain.zero_grad()
    model.zero_grad()

    def saved(module: nn.Module) -> bytes:
        buffer = io.BytesIO()
        torch.save(module, buffer)
        return buffer.getvalue()

    assert pickle.dumps(model).count(b"morphogen") == 0
    assert saved(model).count(b"morphogen") == 0
    assert list(model.state_dict()) == list(plain.state_dict())
    copied = copy.deepcopy(model)
    assert traces(copied) == []
    inputs = torch.randn(2, 4)
    assert torch.equal(copied(inputs), model(inputs))
    copied_optimizer = copy.deepcopy(optimizer)
    assert not copied_optimizer._optimizer_step_pre_hooks
    loaded = torch.load(io.BytesIO(saved(model)), weights_only=False)
    assert torch.equal(loaded(inputs), model(inputs))
    watch.close()


def test_a_deleted_model_is_freed_at_once_and_the_watch_ends() -> None:
    model = model_of()
    optimizer, _, watch = watched(model)
    train(model, optimizer, 2)
    gone = weakref.ref(model), weakref.ref(model[0]), weakref.ref(model[0].weight)
    gc.disable()
    try:
        del model, optimizer
        assert gone[0]() is None
        assert gone[1]() is None
    finally:
        gc.enable()
    gc.collect()
    until(lambda: gone[2]() is None)  # the thread that works out samples may be within one
    watch.close()


def test_a_watch_that_nobody_keeps_goes_on() -> None:
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    samples: list[LayerSample] = []
    Watch(model, optimizer, 1, samples.append)
    gc.collect()
    train(model, optimizer, 2)
    until(lambda: len(samples) == 2)


def broken(sample: LayerSample) -> None:
    raise OSError("the disk\nis gone")


@pytest.mark.parametrize("behind", [True, False])
def test_an_error_while_emitting_warns_once_and_ends_the_watch(behind: bool) -> None:
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = Watch(model, optimizer, 1, broken)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        train(model, optimizer, 2)
        until(lambda: bool(seen)) if behind else watch.flush()
        train(model, optimizer, 2)
        watch.flush()
        watch.close()
    assert [str(w.message) for w in seen] == ["watch stopped, training goes on: OSError: the disk is gone"]
    assert traces(model) == []


def test_an_error_while_the_last_samples_are_emitted_is_no_error_of_close() -> None:
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = Watch(model, optimizer, 1, broken)
    train(model, optimizer, 1)
    with pytest.warns(RuntimeWarning, match="the disk is gone"):
        watch.close()


def test_an_error_that_has_no_text_is_told_by_its_type() -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    def fails(_: LayerSample) -> None:
        raise Unspeakable

    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = Watch(model, optimizer, 1, fails)
    train(model, optimizer, 1)
    with pytest.warns(RuntimeWarning, match="Unspeakable: <.*Unspeakable>"):
        watch.close()


def test_an_error_never_reaches_training_even_where_warnings_are_errors() -> None:
    model = model_of()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    watch = Watch(model, optimizer, 1, broken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, optimizer, 1)
        watch.flush()
        train(model, optimizer, 2)
    assert traces(model) == []


def test_a_watch_that_fails_inside_the_optimizers_hooks_leaves_the_hooks_of_others_alone() -> None:
    model = model_of()
    optimizer, _, watch = watched(model)
    called: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    watch._parts = None  # type: ignore[assignment]
    with pytest.warns(RuntimeWarning, match="watch stopped"):
        train(model, optimizer, 2)
    watch.close()
    assert called == ["before", "after"] * 2
    assert len(optimizer._optimizer_step_pre_hooks) == 1


def test_samples_come_by_themselves_and_in_order() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model)
    train(model, optimizer, 200)
    until(lambda: len(samples) == 200)
    assert [s.step for s in samples] == list(range(1, 201))
    watch.close()


def test_the_training_thread_helps_where_samples_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "AGE", 60.0)
    monkeypatch.setattr(backlog, "MOST", 10)
    model = model_of()
    optimizer, samples, watch = watched(model)
    train(model, optimizer, 25)
    assert len(samples) == 22
    watch.close()
    assert [s.step for s in samples] == list(range(1, 26))


def test_a_forked_child_emits_its_own_samples_only() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model)
    train(model, optimizer, 3)
    child = os.fork()
    if child == 0:
        samples.clear()
        train(model, optimizer, 2)
        watch.close()
        os._exit(0 if [s.step for s in samples] == [4, 5] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    watch.close()
    assert [s.step for s in samples] == [1, 2, 3]


class Strange(Tensor):
    """A tensor that refuses to be looked at."""

    def is_floating_point(self) -> bool:
        raise RuntimeError("nobody may look at me")


class Returns(nn.Module):
    """A layer that returns what it is told to."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(x * self.weight)


class Holds(nn.Module):
    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner = Returns(make)
        self.kept: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.inner(x)
        return x * self.inner.weight


def test_an_error_in_the_forward_pass_never_reaches_training() -> None:
    model = Holds(lambda x: x.detach().as_subclass(Strange))
    optimizer, samples, _ = watched(model)
    with pytest.warns(RuntimeWarning, match="watch stopped"):
        train(model, optimizer, 3)
    assert samples == []
    assert traces(model) == []


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda x: (x, 1), True),
        (lambda x: {"a": None, "b": [x]}, True),
        (lambda x: (None, "text"), False),
        (lambda x: None, False),
        (lambda x: x.long(), False),
        (lambda x: x[:0], False),
        (lambda x: (x.t(), x), True),
    ],
)
def test_the_first_tensor_of_an_output_is_measured_or_the_layer_is_missing(
    make: Callable[[Tensor], Any], found: bool
) -> None:
    model = Holds(make)
    optimizer, samples, watch = watched(model)
    inputs = torch.randn(3, 4)
    train(model, optimizer, 2, inputs)
    watch.close()
    means = samples[0].signals["activation_mean"]
    assert (means is not None) is found
    if means is not None:
        np.testing.assert_allclose(means, [inputs.mean()], atol=1e-6)


def test_a_forward_pass_that_fails_leaves_nothing_behind() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model)
    train(model, optimizer)
    model.append(nn.Linear(7, 7))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(torch.full((3, 4), 1e6))
    del model[3]
    inputs = torch.zeros(3, 4)
    train(model, optimizer, 1, inputs)
    watch.close()
    means = samples[1].signals["activation_mean"]
    assert means is not None
    assert abs(means[0]) < 10


def test_a_part_of_the_model_used_alone_is_measured_too() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model)
    inputs = torch.randn(3, 4)
    for _ in range(2):
        optimizer.zero_grad()
        expected = model[0](inputs)
        expected.sum().backward()
        optimizer.step()
        watch.flush()
        assert samples[-1].missing["activation_mean"] == [1]
        means = samples[-1].signals["activation_mean"]
        assert means is not None
        np.testing.assert_allclose(means[0], expected.detach().mean(), rtol=1e-5)
    watch.close()


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_activations_count_once(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model_of()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = checkpoint(self.inner, x, use_reentrant=reentrant)
            return out

    model = Checkpointed()
    optimizer, samples, watch = watched(model)
    inputs = torch.randn(3, 4, requires_grad=True)
    with torch.no_grad():
        inputs[0, 0] = math.nan
    for _ in range(2):
        optimizer.zero_grad()
        for _ in range(2):
            model(inputs).sum().backward()
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    watch.close()
    for sample in samples:
        counts = sample.signals["nonfinite"]
        assert counts is not None
        assert counts.tolist() == [8.0, 4.0]


def test_lazy_layers_are_measured_from_the_step_that_gives_them_weights() -> None:
    model = nn.Sequential(nn.LazyLinear(5), nn.ReLU(), nn.LazyConv1d(3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
    samples: list[LayerSample] = []
    watch = Watch(model, optimizer, 1, samples.append)
    train(model, optimizer, 3, torch.randn(2, 3, 4))
    watch.close()
    assert samples[0].signals["grad_norm"] is not None
    assert samples[0].signals["dead_share"] is not None
    assert samples[1].signals["activation_mean"] is not None
    assert samples[1].missing == {}


def test_layers_that_are_added_while_training_are_seen() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model)
    train(model, optimizer, 2)
    model.append(nn.Linear(2, 2))
    optimizer.add_param_group({"params": list(model[3].parameters())})
    train(model, optimizer, 2)
    watch.close()
    assert [len(s.layers) for s in samples] == [2, 2, 3, 3]
    assert samples[3].missing == {}


def test_a_layer_that_is_replaced_is_seen_within_a_hundred_steps() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model)
    train(model, optimizer, 1)
    model[2] = nn.Linear(4, 2)
    optimizer.param_groups[0]["params"][2:] = list(model[2].parameters())
    train(model, optimizer, 102)
    watch.close()
    assert samples[-1].missing == {}
    norms = samples[-1].signals["weight_norm"]
    assert norms is not None
    assert norms[1] > 0


def test_parameters_whose_memory_or_type_changes_are_read_where_they_are() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model)
    train(model, optimizer, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.clone() * 2
    train(model, optimizer, 1)
    watch.flush()
    norms = samples[-1].signals["weight_norm"]
    assert norms is not None
    assert norms[0] > 1.5 * samples[-2].signals["weight_norm"][0]  # type: ignore[index]
    model.to(torch.bfloat16)
    train(model, optimizer, 2, torch.randn(3, 4, dtype=torch.bfloat16))
    model.to(torch.float64)
    train(model, optimizer, 2, torch.randn(3, 4, dtype=torch.float64))
    watch.close()
    assert len(samples) == 7
    expected = math.sqrt(sum(float(p.detach().square().sum()) for p in model.get_submodule("2").parameters()))
    last = samples[-1].signals["weight_norm"]
    assert last is not None
    np.testing.assert_allclose(last[1], expected, rtol=0.2)


def test_tied_weights_are_reported_by_each_layer_that_owns_them() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
    model[1].weight = model[0].weight
    optimizer, samples, watch = watched(model)
    train(model, optimizer, 2, torch.tensor([1, 2]))
    watch.close()
    norms = samples[1].signals["weight_norm"]
    assert norms is not None
    assert norms[0] == norms[1] > 0


def test_a_shared_bias_does_not_confuse_dead_units() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].bias = model[0].bias
    with torch.no_grad():
        model.get_submodule("0").get_parameter("bias").fill_(-100.0)
    optimizer, samples, watch = watched(model)
    train(model, optimizer, 2)
    watch.close()
    shares = samples[1].signals["dead_share"]
    assert shares is not None
    assert shares.tolist() == [1.0, 1.0, 0.0]


def test_a_layer_that_grows_is_read_in_its_new_shape() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model)
    train(model, optimizer, 2)
    watch.flush()
    wide = nn.Linear(4, 6), nn.Linear(6, 2)
    optimizer.state.clear()
    for layer, new in zip((model[0], model[2]), wide, strict=True):
        layer.weight.data, layer.bias.data = new.weight.data, new.bias.data
    train(model, optimizer, 2)
    watch.close()
    norms = samples[-1].signals["weight_norm"]
    assert norms is not None
    expected = math.sqrt(sum(float(p.detach().square().sum()) for p in model.get_submodule("0").parameters()))
    np.testing.assert_allclose(norms[0], expected, rtol=0.2)
    assert len(samples) == 4


@pytest.mark.parametrize("between", [True, False])
def test_without_the_slot_hooks_see_the_same_and_are_left_behind_by_copies(
    between: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = model_of()
    optimizer, expected, watch = watched(plain)
    train(plain, optimizer, 3, torch.ones(3, 4))
    watch.close()
    monkeypatch.setattr(calls, "_HAS_SLOT", False)
    model = model_of()
    optimizer, samples, watch = watched(model)
    model.eval()
    model(torch.full((3, 4), 100.0))
    model.train()
    with pytest.raises(RuntimeError):
        model(torch.ones(3, 5))
    if not between:
        copied = copy.deepcopy(model)
        loaded = pickle.loads(pickle.dumps(model))
        assert torch.equal(copied(torch.ones(2, 4)), loaded(torch.ones(2, 4)))
    train(model, optimizer, 3, torch.ones(3, 4))
    watch.close()
    assert traces(model) == []
    assert len(samples) == 3
    for sample, truth in zip(samples, expected, strict=True):
        assert sample.missing == truth.missing
        for name, values in truth.signals.items():
            np.testing.assert_array_equal(sample.signals[name], values)


def test_two_watches_of_one_model_share_its_calls() -> None:
    model = model_of()
    optimizer, first, one = watched(model)
    second: list[LayerSample] = []
    two = Watch(model, optimizer, 1, second.append)
    train(model, optimizer, 3)
    one.close()
    train(model, optimizer, 1)
    two.close()
    assert [len(first), len(second)] == [3, 4]
    assert all(s.signals["grad_norm"] is not None for s in second)
    assert all(s.signals["activation_mean"] is not None for s in second)
    assert traces(model) == []


def test_a_forward_in_another_thread_is_neither_broken_nor_measured() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model)
    results: list[Tensor] = []
    thread = threading.Thread(target=lambda: results.append(model(torch.full((3, 4), 1e9))))
    thread.start()
    thread.join()
    assert results[0].shape == (3, 2)
    train(model, optimizer)
    watch.close()
    means = samples[0].signals["activation_mean"]
    assert means is not None
    assert abs(means[0]) < 1e3


@pytest.mark.parametrize("watches", [1, 3])
def test_a_replica_that_shares_our_slot_calls_its_own_weights(watches: int) -> None:
    model = model_of()
    open_ones = [watched(model)[2] for _ in range(watches)]
    replica = model[0]._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
    replica.__dict__["weight"] = torch.zeros(4, 4)
    replica.__dict__["bias"] = torch.ones(4)
    results: list[Tensor] = []
    thread = threading.Thread(target=lambda: results.append(replica(torch.randn(1, 4))))
    thread.start()
    thread.join()
    for watch in open_ones:
        watch.close()
    assert results[0].tolist() == [[1.0] * 4]
    assert traces(model) == []


@pytest.fixture
def compiled() -> Iterator[Callable[..., Any]]:
    yield lambda target, **options: torch.compile(target, backend="eager", **options)
    torch._dynamo.reset()


def quiet() -> Any:
    warnings.simplefilter("ignore")
    return warnings.catch_warnings()


def test_a_compiled_model_keeps_gradient_and_weight_signals(compiled: Callable[..., Any]) -> None:
    model = model_of()
    fast = compiled(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    samples: list[LayerSample] = []
    watch = Watch(fast, optimizer, 2, samples.append)
    train(fast, optimizer, 6)
    watch.close()
    assert len(samples) == 3
    assert samples[-1].layers == ("0", "2")
    assert samples[-1].signals["activation_mean"] is None
    assert samples[-1].missing == {}
    for name in ("grad_norm", "weight_norm", "update_ratio", "dead_share", "nonfinite"):
        assert samples[-1].signals[name] is not None


def test_a_model_compiled_while_it_is_watched_still_trains_without_graph_breaks(
    compiled: Callable[..., Any],
) -> None:
    model = model_of()
    optimizer, samples, watch = watched(model, 2)
    train(model, optimizer, 1)
    fast = compiled(model, fullgraph=True)
    inputs = torch.randn(3, 4)
    train(fast, optimizer, 20, inputs)
    watch.close()
    assert len(samples) == 11
    assert all(s.signals["grad_norm"] is not None for s in samples)


def test_a_scripted_and_a_traced_model_keep_working() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, torch.randn(3, 4))  # type: ignore[no-untyped-call]
        scripted = torch.jit.script(model_of())
        assert "stack" not in str(traced.graph)
        other: list[LayerSample] = []
        own = torch.optim.SGD(scripted.parameters(), 0.1)
        second = Watch(scripted, own, 1, other.append)
        train(scripted, own, 2)
    train(model, optimizer, 1)
    watch.close()
    second.close()
    assert len(samples) == 1
    assert other[-1].signals["grad_norm"] is not None


def test_wrappers_do_not_show_in_names(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        inner = nn.Module()
        inner.module = model_of()
        inner.forward = inner.module.forward
        model = nn.parallel.DistributedDataParallel(inner)
        optimizer, samples, watch = watched(model)
        train(model, optimizer, 2)
        watch.close()
    finally:
        torch.distributed.destroy_process_group()
    assert samples[-1].layers == ("module.0", "module.2")  # the user's own "module" stays
    assert samples[-1].missing == {}


@pytest.mark.filterwarnings("ignore")
def test_shards_of_fully_sharded_layers_are_measured(tmp_path: Path) -> None:
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        model = model_of()
        plain = copy.deepcopy(model)
        fsdp.fully_shard(model, mesh=mesh)
        inputs = torch.randn(3, 4)
        optimizer, samples, watch = watched(model)
        train(model, optimizer, 2, inputs)
        watch.close()
        reference, truth, other = watched(plain)
        train(plain, reference, 2, inputs)
        other.close()
    finally:
        torch.distributed.destroy_process_group()
    for name in ("grad_norm", "weight_norm", "update_ratio", "dead_share", "nonfinite"):
        np.testing.assert_allclose(samples[-1].signals[name], truth[-1].signals[name], rtol=1e-4, err_msg=name)  # type: ignore[arg-type]


class NeverEvent:
    def query(self) -> bool:
        return False


class NeverLink:
    def fetch(self, values: Tensor) -> tuple[Tensor, NeverEvent]:
        return values, NeverEvent()


def test_training_never_waits_for_the_device() -> None:
    model = model_of()
    optimizer, samples, watch = watched(model, link=lambda device: NeverLink())
    began = time.monotonic()
    train(model, optimizer, 20)
    assert time.monotonic() - began < 4
    assert samples == []
    watch.close(timeout=0.1)


def test_importing_the_producers_does_not_import_torch() -> None:
    code = "import sys, morphogen.producers; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
