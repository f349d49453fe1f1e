"""One training run, the same loop for every arm: paired split, weights and batch order, the test part read at the end."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from hosts import Host
from judged import Judged
from splits import Split
from torch import Tensor, nn

from morphogen.kernels.slots import Evaluation

Evaluate = Callable[[nn.Module], Evaluation]


class Grows(Protocol):
    """What may grow the network after each epoch."""

    def epoch(self, *, train_loss: float, val_loss: float, val_accuracy: float | None) -> object:
        """Take in what the epoch measured."""

    def finish(self) -> object:
        """Say what came of it."""


Begin = Callable[[Any, nn.Module, torch.optim.Optimizer, Evaluate, int], Grows | None]
"""(run, model, optimizer, evaluate on the validation part, steps of an epoch) -> what grows the model, or None."""


def loss_of(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy over samples, or over all places of all sequences."""
    return nn.functional.cross_entropy(scores.flatten(0, -2), targets.flatten())


def evaluation(model: nn.Module, part: tuple[Tensor, Tensor]) -> Evaluation:
    """Return loss, accuracy and the number of samples of one part, in evaluation mode; the mode is put back."""
    inputs, targets = part
    before = model.training
    model.eval()
    with torch.no_grad():
        scores = model(inputs)
        right = (scores.argmax(-1) == targets).float().mean()
        found = Evaluation(loss=float(loss_of(scores, targets)), accuracy=float(right), n=len(targets))
    model.train(before)
    return found


def weights_of(model: nn.Module, names: tuple[str, ...]) -> str:
    """Return the sha256 of the bytes of the parameters of these names."""
    state, digest = model.state_dict(), hashlib.sha256()
    for name in names:
        digest.update(name.encode() + state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Trained:
    """A network after its last epoch; its test part is still sealed."""

    model: nn.Module
    split: Split
    validated: Evaluation
    epochs: int
    step: int
    seconds: float  # of wall time, from the first batch to the last


def train(
    host: Host, seed: int, *, model: nn.Module | None = None, run: Any = None, begin: Begin | None = None
) -> Trained:
    """Train `host` with `seed`; record losses and accuracy of each epoch into `run` where there is one.

    Weights, split and batch order depend on `seed` alone. `begin` attaches growth; without it this is a plain loop.
    `model` stands in for the host's own network, for an arm that begins with another topology.
    """
    model = host.model(seed) if model is None else model
    split = host.split(seed)
    inputs, targets = split.train
    optimizer = torch.optim.Adam(model.parameters(), host.learning_rate)
    measured = evaluation(model, split.validation)
    steps = -(-len(targets) // host.batch)

    def evaluate(candidate: nn.Module) -> Evaluation:
        return evaluation(candidate, split.validation)

    grower = begin(run, model, optimizer, evaluate, steps) if begin is not None else None
    order = torch.Generator().manual_seed(seed)
    began, step = time.perf_counter(), 0
    for _ in range(host.epochs):
        total = torch.zeros(())
        for batch in torch.split(torch.randperm(len(targets), generator=order), host.batch):
            optimizer.zero_grad()
            loss = loss_of(model(inputs[batch]), targets[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach() * len(batch)
            step += 1
        train_loss, measured = float(total) / len(targets), evaluate(model)
        if run is not None:
            known = {"train/loss": train_loss, "validation/loss": measured.loss}
            run.log({**known, "validation/accuracy": measured.accuracy}, step=step)
        if grower is not None:
            grower.epoch(train_loss=train_loss, val_loss=measured.loss, val_accuracy=measured.accuracy)
    seconds = time.perf_counter() - began
    if grower is not None:
        grower.finish()
        measured = evaluate(model)  # what was still growing is judged, and may be gone
    return Trained(model, split, measured, host.epochs, step, seconds)


def judge(host: Host, seed: int, arm: str, setting: str, done: Trained, run: Any = None) -> Judged:
    """Read the test part, for the only time, and record what it says."""
    tested = evaluation(done.model, done.split.test.open())
    own = host.model(seed)
    judged = Judged(
        host=host.name,
        arm=arm,
        seed=seed,
        setting=setting,
        split=done.split.sha256,
        epochs=done.epochs,
        validation_loss=done.validated.loss,
        validation_accuracy=done.validated.accuracy or 0.0,
        test_loss=tested.loss,
        test_accuracy=tested.accuracy or 0.0,
        host_params=sum(parameter.numel() for parameter in own.parameters()),
        params=sum(parameter.numel() for parameter in done.model.parameters()),
        host_weights=weights_of(done.model, tuple(own.state_dict())),
        seconds=done.seconds,
    )
    if run is not None:
        run.event(judged, step=done.step)
    return judged
