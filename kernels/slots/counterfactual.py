"""The counterfactual: the same batches with a slot's alpha as it is and with alpha 0."""

from collections.abc import Callable

import msgspec
import torch
from torch import nn

from .errors import SlotError
from .lifecycle import BLENDED
from .slots import Slots
from .undisturbed import undisturbed


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What a model gave on a split: mean loss, share of right answers, number of samples."""

    loss: float
    accuracy: float | None = None
    n: int = 0


Evaluate = Callable[[nn.Module], Evaluation | tuple[float, float | None] | float]
"""Runs a model over a split. It is called in eval mode and without gradients, and takes the same batches each time."""


class Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """The same batches twice: with a seed, and without it."""

    slot: str
    seed: str
    alpha: float  # with which "with" was measured
    n: int
    loss_with: float
    loss_without: float
    accuracy_with: float | None = None
    accuracy_without: float | None = None
    tripped: str | None = None  # the seed was cut off while, or before, it was measured: it has no gain then

    @property
    def gain(self) -> float | None:
        """Loss without the seed minus loss with it: above zero, the seed lowers the loss."""
        return None if self.tripped else self.loss_without - self.loss_with

    @property
    def accuracy_gain(self) -> float | None:
        """Accuracy with the seed minus accuracy without it."""
        if self.tripped or self.accuracy_with is None or self.accuracy_without is None:
            return None
        return self.accuracy_with - self.accuracy_without


def contribution(slots: Slots, slot_id: str, evaluate: Evaluate) -> Contribution:
    """Measure what the seed of a slot does, by `evaluate(model)` once with it and once without.

    A seed that is not yet blended is measured at alpha 1. Both runs start from the same random state, and neither leaves
    a trace in it, in buffers or in training flags. Raises SlotError where no seed stands; what `evaluate` raises goes on.
    """
    slot = slots[slot_id]
    seed_id = slot.seed_id
    if seed_id is None:
        raise SlotError(f"{slot_id}: no seed stands here, the slot is {slot.stage}; there is nothing to measure")
    alpha = slot.alpha if slot.stage in BLENDED else 1.0
    present = _measure(slots, slot_id, alpha, evaluate)
    tripped = slot.tripped
    absent = _measure(slots, slot_id, 0.0, evaluate)
    return Contribution(
        slot=slot_id,
        seed=seed_id,
        alpha=alpha,
        n=present.n,
        loss_with=present.loss,
        loss_without=absent.loss,
        accuracy_with=present.accuracy,
        accuracy_without=absent.accuracy,
        tripped=tripped,
    )


def evaluation(found: Evaluation | tuple[float, float | None] | float) -> Evaluation:
    """Give what an `evaluate` gave as an Evaluation: a loss, or loss and accuracy, will do."""
    if isinstance(found, Evaluation):
        return found
    if isinstance(found, tuple | list):
        loss, accuracy = found
        return Evaluation(loss=float(loss), accuracy=None if accuracy is None else float(accuracy))
    return Evaluation(loss=float(found))


def _measure(slots: Slots, slot_id: str, alpha: float, evaluate: Evaluate) -> Evaluation:
    with undisturbed(slots.model), torch.no_grad(), slots[slot_id].held_at(alpha):
        slots.model.eval()
        return evaluation(evaluate(slots.model))
