"""The epochs of one growth, as the log tells them."""

from typing import Any

from morphogen.consumers.policy import plateau
from morphogen.kernels.slots import Slots
from morphogen.schemas import EpochMeasured

from .config import GrowthConfig
from .given import learning_rate


class Epochs:
    """What was measured at the end of each epoch so far; `len` is their number."""

    def __init__(self, slots: Slots, optimizer: Any, config: GrowthConfig) -> None:
        self._slots, self._optimizer, self._config = slots, optimizer, config
        self._losses: list[float | None] = []

    def __len__(self) -> int:
        return len(self._losses)

    def ended(
        self, *, train_loss: float | None, val_loss: float | None, val_accuracy: float | None, n: int | None
    ) -> EpochMeasured:
        """Count an epoch and return its event; `n` is the number of validation examples, None where it is not known."""
        losses = [*self._losses, val_loss if val_loss is not None else train_loss]
        event = EpochMeasured(
            epoch=len(self._losses),
            train_loss=train_loss,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            params_total=sum(p.numel() for p in self._slots.root.parameters()),
            params_grown=self._slots.params(),
            learning_rate=learning_rate(self._optimizer),
            plateau=plateau(losses, window=self._config.plateau_window, threshold=self._config.plateau_threshold),
            n=n,
        )
        self._losses = losses
        return event
