"""What all parts of the executor share: the slots, what stands in them, and the one way to say something."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch

from morphogen.kernels.slots import SeedHealth, Slot, Slots
from morphogen.schemas import AlertRaised, Event, SlotStageChanged

from .config import Bounds, ExecutorConfig
from .seedling import Seedling
from .state import LIVE, STANDING, States, fold

Say: TypeAlias = Callable[[Event, str | None], str | None]
"""Records an event with its cause, and returns its id."""

_ALERTS = 1000  # different ones in a run


class Bed:
    """The slots of one model, the seeds that stand there, and the fold of all that was said of them."""

    def __init__(
        self, slots: Slots, optimizer: torch.optim.Optimizer, say: Say, config: ExecutorConfig, bounds: Bounds
    ) -> None:
        self.slots, self.optimizer = slots, optimizer
        self.config, self.bounds = config, bounds
        self.epoch = -1
        self.states: States = {}
        self.standing: dict[str, Seedling] = {}
        self.judged: list[Seedling] = []
        self.health: dict[str, SeedHealth] = {}  # of the last epoch, by slot
        self.steps_an_epoch: int | None = None
        self.counts = {"germinated": 0, "fossilized": 0, "pruned": 0, "rollbacks": 0, "failures": 0}
        self._say = say
        self._alerted: set[str] = set()

    def say(self, event: Event, cause: str | None = None) -> str | None:
        """Record an event of ours, and keep count of where every slot stands."""
        self.states = fold(self.states, event)
        return self._say(event, cause)

    def say_stage(
        self,
        slot: Slot,
        before: str,
        reason: str,
        initiator: str,
        decision: str | None,
        cause: str | None,
        epochs: int = 0,
        *,
        stage: str | None = None,
    ) -> None:
        """Record that a slot has gone from the stage `before`, where it spent `epochs`, to `stage`, else to where it is."""
        seedling = self.standing.get(slot.id)
        self.say(
            SlotStageChanged(
                slot=slot.id,
                seed=slot.seed_id or (None if seedling is None else seedling.seed),
                from_stage=before,
                to_stage=stage or str(slot.stage),
                reason=reason[:500],
                initiator=initiator,
                alpha=slot.alpha,
                epochs_in_stage=epochs,
                decision=decision,
            ),
            cause,
        )

    def alert(self, severity: str, subject: str, message: str) -> None:
        """Ask a person to look; once for the same thing."""
        if message not in self._alerted and len(self._alerted) < _ALERTS:
            self._alerted.add(message)
            self.say(AlertRaised(severity=severity, subject=subject, message=message, evidence={"epoch": self.epoch}))

    def has_say(self, slot_id: str) -> bool:
        """Whether the seed of a slot changes what the model gives."""
        return self.slots[slot_id].stage in STANDING and self.slots[slot_id].alpha > 0

    def suspects(self) -> list[str]:
        """Return the slots whose seeds have a say and can still be taken out."""
        return [slot_id for slot_id, one in self.standing.items() if one.stage in LIVE and self.has_say(slot_id)]

    def optimizer_holds(self, ids: Iterable[int]) -> bool:
        """Whether the optimizer knows any of the parameters of these ids."""
        wanted = set(ids)
        held = (p for group in self.optimizer.param_groups for p in group["params"])
        return any(id(p) in wanted for p in (*held, *self.optimizer.state))
