"""A dry run: what is to grow is tried on a copy of the model first."""

import math
from collections.abc import Mapping

import torch

from morphogen.consumers.executor import Evaluate, Stock
from morphogen.kernels.slots import Slots, evaluation
from morphogen.kernels.slots.undisturbed import undisturbed
from morphogen.schemas import Action

from .config import GrowthConfig

_FULL: Mapping[str, float] = {"germinate": 1.0, "advance": 1.0}


class Shadow:
    """Tries actions on a deep copy of the grown model, which is thrown away; costs a copy and two evaluations each."""

    def __init__(self, slots: Slots, evaluate: Evaluate, config: GrowthConfig) -> None:
        self._slots, self._evaluate, self._config = slots, evaluate, config
        self.stock: Stock = {}

    def trouble(self, action: Action) -> str | None:
        """Return what would go wrong with the seed fully blended in, or None: an output or a loss that explodes."""
        alpha = action.alpha if action.op == "set_alpha" else _FULL.get(action.op)
        if alpha is None or action.slot is None or action.slot not in self._slots:
            return None
        with undisturbed(self._slots.root):
            before = self._loss(self._slots)
            shadow = self._slots.shadow()
            slot = shadow[action.slot]
            if action.op == "germinate":
                item = self.stock.get(slot.site, {}).get(action.blueprint or "")
                if item is None:
                    return f"the menu of {slot.site} has no {action.blueprint!r}"
                slot.germinate(item.make(0, zero_last=False), blueprint=item.address, blend=self._config.blend)
            with slot.held_at(alpha):
                after = self._loss(shadow)
            if slot.tripped is not None:
                return f"on a copy the seed was cut off: {slot.tripped}"
        if not math.isfinite(after):
            return "on a copy the loss is not finite"
        bound = self._config.dry_run_bound * before
        if math.isfinite(before) and before > 0 and after > bound:
            return f"on a copy the loss is {after:.4g}, more than {self._config.dry_run_bound:g} times {before:.4g}"
        return None

    def _loss(self, slots: Slots) -> float:
        with undisturbed(slots.model), torch.no_grad():
            slots.model.eval()
            return evaluation(self._evaluate(slots.model)).loss
