"""Copies and pickles of a watched model are models of their own, whatever way its modules have of copying themselves."""

import copy
import io
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from morphogen.producers.watch import LayerSample, Watch


class First(nn.Module):
    """A recurrent layer that gives its outputs alone."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.inner(x)[0]
        return output


class OwnState(nn.Linear):
    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__.copy()


class OwnReduce(nn.Linear):
    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (type(self),), self.__dict__


class OwnCopies(nn.Linear):
    def __copy__(self) -> "OwnCopies":
        twin = _blank(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> "OwnCopies":
        twin = self.__copy__()
        twin._parameters = copy.deepcopy(self._parameters, memo)
        return twin


def _blank(kind: type[nn.Module]) -> Any:
    return kind.__new__(kind)


def parametrized() -> nn.Module:
    layer: nn.Module = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    return layer


MAKES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 4),
    "lstm": lambda: First(nn.LSTM(4, 4)),
    "gru": lambda: First(nn.GRU(4, 4)),
    "rnn": lambda: First(nn.RNN(4, 4)),
    "state": lambda: OwnState(4, 4),
    "reduce": lambda: OwnReduce(4, 4),
    "copies": lambda: OwnCopies(4, 4),
    "parametrized": parametrized,
    "traced": lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4))),
}


def saved(model: nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    return buffer.getvalue()


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "save": lambda model: torch.load(io.BytesIO(saved(model)), weights_only=False),
}


def train(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, steps: int = 1) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()


def watched(model: nn.Module, times: int = 1) -> tuple[torch.optim.Optimizer, list[LayerSample], list[Watch]]:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    samples: list[LayerSample] = []
    return optimizer, samples, [Watch(model, optimizer, 1, samples.append) for _ in range(times)]


@pytest.mark.parametrize("watches", [1, 2])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", MAKES)
def test_a_copy_computes_and_learns_by_itself(make: str, way: str, watches: int) -> None:
    if make == "parametrized" and way != "deepcopy":
        pytest.skip("torch itself refuses to pickle it")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), MAKES[make]())
    optimizer, _, watching = watched(model, watches)
    inputs = torch.randn(3, 4)
    train(model, optimizer, inputs)
    twin = WAYS[way](model)
    expected = model(inputs).detach()

    assert torch.equal(twin(inputs), expected)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert torch.equal(twin(inputs), expected)
    model.zero_grad()
    twin.zero_grad()
    twin(inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    del model, optimizer
    assert torch.equal(twin(inputs), expected)
    for watch in watching:
        watch.close()


@pytest.mark.parametrize("make", ["lstm", "state", "reduce", "copies"])
def test_a_pickle_holds_nothing_of_ours(make: str) -> None:
    inner = MAKES[make]()
    model = nn.Sequential(nn.Linear(4, 4), inner)
    _optimizer, _, watching = watched(model)
    before = [pickle.dumps(model).count(b"morphogen"), saved(model).count(b"morphogen")]
    watching[0].close()

    assert before == [pickle.dumps(model).count(b"morphogen"), saved(model).count(b"morphogen")]


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("watches", [1, 2])
@pytest.mark.parametrize("kind", [OwnState, OwnReduce, OwnCopies])
def test_a_shallow_copy_calls_itself_and_is_not_measured(kind: type[nn.Linear], watches: int, close: bool) -> None:
    class Model(nn.Module):
        """Calls a copy of its layer that it holds outside of its modules."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(4, 4)
            self.others: list[nn.Module] = []

        def forward(self, x: Tensor) -> Tensor:
            for other in self.others:
                other(torch.full_like(x, 1e6))
            output: Tensor = self.layer(x)
            return output

    model, inputs = Model(), torch.ones(3, 4)
    optimizer, samples, watching = watched(model, watches)
    train(model, optimizer, inputs)
    twin = copy.copy(model.layer)
    twin._parameters = {
        name: nn.Parameter(torch.zeros_like(p)) for name, p in twin._parameters.items() if p is not None
    }
    model.others.append(twin)
    if close:
        for watch in watching:
            watch.close()
    assert not twin(inputs).any()
    train(model, optimizer, inputs)
    for watch in watching:
        watch.close()
    means = samples[-1].signals["activation_mean"]
    assert means is not None and abs(means[0]) < 100
    assert "_compiled_call_impl" not in twin.__dict__


@pytest.mark.parametrize("aside", [True, False])
def test_a_replica_of_an_rnn_calls_its_own_weights(aside: bool) -> None:
    model = nn.Sequential(nn.LSTM(4, 4))
    _optimizer, _, watching = watched(model)
    replica = model[0]._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
    replica._flat_weights = [torch.zeros_like(weight) for weight in replica._flat_weights]
    results: list[Tensor] = []
    if aside:
        thread = threading.Thread(target=lambda: results.append(replica(torch.randn(1, 4))[0]))
        thread.start()
        thread.join()
    else:
        results.append(replica(torch.randn(1, 4))[0])
    watching[0].close()
    assert not results[0].any()


def test_a_module_that_copies_in_its_own_way_is_measured_and_compiled_like_any_other() -> None:
    def measured(kind: type[nn.Linear], compiled: bool) -> LayerSample:
        torch.manual_seed(0)
        model = nn.Sequential(kind(4, 4), nn.ReLU(), kind(4, 2))
        optimizer, samples, watching = watched(model)
        fast = torch.compile(model, backend="eager", fullgraph=True) if compiled else model
        train(fast, optimizer, torch.ones(3, 4), 3)
        watching[0].close()
        torch._dynamo.reset()
        return samples[-1]

    for compiled in (False, True):
        plain, own = measured(nn.Linear, compiled), measured(OwnState, compiled)
        assert own.missing == plain.missing
        assert all(
            (one is None) == (other is None) and (one is None or other is None or one.tolist() == other.tolist())
            for one, other in zip(own.signals.values(), plain.signals.values(), strict=True)
        )
