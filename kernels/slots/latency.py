"""What a seed costs the forward pass: the same batches with it and without it, in turns, by the clock."""

import statistics
import time
from collections.abc import Callable

import torch

from .counterfactual import Evaluate
from .errors import SlotError
from .lifecycle import BLENDED
from .slots import Slots
from .undisturbed import undisturbed


def latency_share(
    slots: Slots,
    slot_id: str,
    evaluate: Evaluate,
    *,
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return what the seed of a slot adds to `evaluate(model)`, as a share of what that takes without it.

    It is the median over `rounds` of passes taken in turns, in eval mode and without gradients; all that `evaluate` does
    counts, reading of data too. It may come out a little below zero. Raises SlotError where no seed stands.
    """
    slot = slots[slot_id]
    if slot.seed_id is None:
        raise SlotError(f"{slot_id}: no seed stands here, the slot is {slot.stage}; there is nothing to time")
    present = slot.alpha if slot.stage in BLENDED and slot.alpha > 0 else 1.0
    ratios = []
    for number in range(rounds + 1):
        took = {}
        for alpha in (present, 0.0) if number % 2 else (0.0, present):
            with undisturbed(slots.model), torch.no_grad(), slot.held_at(alpha):
                slots.model.eval()
                began = clock()
                evaluate(slots.model)
                took[alpha] = clock() - began
        if number:  # the first pass of each warms up
            ratios.append(took[present] / max(took[0.0], 1e-9) - 1)
    return statistics.median(ratios)
