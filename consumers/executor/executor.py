"""Do to the slots what was decided, by small steps that can be taken back, and say in events what was done.

Nothing here decides. An action that is not legal or not possible is refused with a reason; what fails is cut off, the
host goes back to its last good weights, and the training goes on.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from morphogen.kernels.slots import Evaluation, Slot, Slots, Stage, contribution, latency_share, watch_outputs
from morphogen.schemas import Action, Event, SlotContribution, SlotFailed, SlotRefused, line_of, sound

from .bed import Bed, Say
from .breaker import Breaker
from .config import Bounds, ExecutorConfig
from .errors import Refused
from .gating import health_event, healths
from .governor import trouble
from .life import Life
from .planting import Planting
from .rescue import Rescue
from .seedling import Seedling
from .sentinel import Sentinel, Trouble, Watched, error_of
from .state import LIVE, States, fold
from .stock import Stock

Evaluate: TypeAlias = Callable[[nn.Module], Evaluation | tuple[float, float | None] | float]
"""Returns loss and accuracy of a model on the same batches every time."""

EVALUATE = "evaluate"  # what failed, where it did

_log = logging.getLogger("morphogen")


@dataclass(frozen=True)
class Applied:
    """What became of an action: done, or why not."""

    done: bool
    reason: str = ""
    slot: str | None = None
    seed: str | None = None


class Executor:
    """Acts on the slots of one model at the ends of its epochs, and guards the steps in between.

    `say` records events; `stock` is what may be germinated where; `steps` returns the program's own step, or None.
    `judged` collects every seed whose life has ended, or that has become a part of the host, until it is taken.
    """

    def __init__(
        self,
        slots: Slots,
        optimizer: torch.optim.Optimizer,
        *,
        say: Say,
        stock: Stock,
        config: ExecutorConfig | None = None,
        bounds: Bounds | None = None,
        seed: int = 0,
        steps: Callable[[], int | None] = lambda: None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.slots, self.config = slots, config or ExecutorConfig()
        self._bed = Bed(slots, optimizer, say, self.config, bounds or Bounds())
        self._life = Life(self._bed)
        self._rescue = Rescue(self._bed, self._life)
        self._planting = Planting(self._bed, self._life, self._rescue, stock, seed, sleep)
        self._acts = {
            "germinate": self._planting.germinate,
            "advance": self._life.advance,
            "set_alpha": self._life.set_alpha,
            "prune": self._life.prune,
            "fossilize": self._life.fossilize,
        }
        self._steps, self._steps_before = steps, steps()
        self._sentinel: Sentinel | None = None
        self._losses: list[float] = []

    # What stands

    @property
    def epoch(self) -> int:
        """The last epoch that has ended, from 0; -1 before."""
        return self._bed.epoch

    @property
    def states(self) -> States:
        """Where every slot stands, folded from the events."""
        return self._bed.states

    @property
    def standing(self) -> dict[str, Seedling]:
        """The seeds that stand, by slot; fossilized ones too."""
        return self._bed.standing

    @property
    def counts(self) -> dict[str, int]:
        """How often something was germinated, fossilized, pruned, restored, or has failed; what was adopted is among it."""
        return self._bed.counts

    @property
    def breaker(self) -> Breaker:
        """The circuit breaker of germination."""
        return self._rescue.breaker

    @property
    def stock(self) -> Stock:
        """What may be germinated where."""
        return self._planting.stock

    @stock.setter
    def stock(self, stock: Stock) -> None:
        self._planting.stock = stock

    def judged(self) -> list[Seedling]:
        """Return the seeds that were judged since the last call."""
        judged, self._bed.judged = self._bed.judged, []
        return judged

    # What the outside may ask for

    def take(self, event: Event) -> None:
        """Fold an event that was recorded by somebody else, such as the one that the growth of the run begins with."""
        self._bed.states = fold(self._bed.states, event)

    def adopt(self) -> None:
        """Take over the seeds that stand already, in a model that was restored from a checkpoint."""
        for slot in self.slots.active():
            self._planting.adopt(slot)
        for slot in self.slots.values():
            if slot.graft is None and slot.stage != Stage.DORMANT:
                self._bed.say_stage(slot, "dormant", "restored", "user", None, None)
        self.rest()

    def apply(
        self, action: Action, *, decision: str | None = None, cause: str | None = None, initiator: str = "policy"
    ) -> Applied:
        """Do `action`, or refuse it with a reason; whatever `action` is, this does not raise."""
        try:
            slot = self._checked(action)
            if slot is None:
                return Applied(True)
            before = self.standing.get(slot.id)
            self._acts[action.op](slot, action, decision, cause, initiator)
            about = self.standing.get(slot.id) or before
            return Applied(True, slot=slot.id, seed=None if about is None else about.seed)
        except Refused as refused:
            reason = str(refused)
        except Exception as error:  # noqa: BLE001  anybody's action; the training loop must not die of it
            reason = f"{type(error).__name__}: {line_of(error)}"
            self.failed(error, "an action")
        asked, name = _asked(action)
        reason = sound(reason)
        self._bed.say(SlotRefused(slot=name, asked=asked, reason=reason[:500], decision=decision), cause)
        return Applied(False, reason, name)

    def end_epoch(
        self,
        epoch: int,
        *,
        train_loss: float | None = None,
        val_loss: float | None = None,
        evaluate: Evaluate | None = None,
    ) -> bool:
        """Do what the end of an epoch brings by itself: health, governor, judgements, the stages that pass by time.

        Before it, the epoch's own event is to be recorded; after it comes the decision, then `rest`. Returns False where
        `evaluate` raised: that is told, and what was not measured by then stays unmeasured in this epoch.
        """
        self._bed.epoch = epoch
        self._count_steps()
        self.slots.epoch()
        self._rescue.pass_epoch()
        self._bed.health = healths(self.slots, self._sentinel)
        health = health_event(self.slots, self._bed.health)
        if health is not None:
            self._bed.say(health)
        self._govern(train_loss, val_loss)
        self._rescue.prove()
        holding = [slot_id for slot_id, seedling in self.standing.items() if seedling.stage == "holding"]
        answered = evaluate is None or all(self._answered(slot_id, evaluate) for slot_id in holding)
        self._tend()
        return answered

    def rest(self) -> None:
        """Make ready for the next epoch's steps: the sentinel, and a copy of the weights where something stands."""
        step = self._steps()
        self._rescue.keep(self.epoch if step is None else step)
        if self._sentinel is not None:
            self._sentinel.close()
        self._sentinel = None
        if self.standing:
            watch_outputs(self.slots)
            self._sentinel = Sentinel(
                self._bed.optimizer,
                self._watched(),
                trouble=self._on_trouble,
                stepped=self.slots.tick,
                failed=lambda error: self.failed(error, "the guard of the optimizer's steps"),
            )

    def measure(self, slot_id: str, evaluate: Evaluate, split: str = "validation") -> None:
        """Measure what the seed of a slot contributes: the same batches with alpha as it is, and with alpha 0."""
        seedling = self.standing[slot_id]
        found = contribution(self.slots, slot_id, evaluate)
        if found.tripped is not None:
            self._cut([slot_id], error_of(found.tripped), f"while it was measured: {found.tripped}", restore=False)
            return
        seedling.contribution, seedling.measured = found, self.epoch
        self._bed.say(
            SlotContribution(
                slot=slot_id,
                seed=seedling.seed,
                split=split,
                n=found.n,
                alpha=found.alpha,
                loss_with=found.loss_with,
                loss_without=found.loss_without,
                accuracy_with=found.accuracy_with,
                accuracy_without=found.accuracy_without,
            ),
            seedling.cause,
        )
        if self.config.latency_rounds and seedling.latency is None:
            seedling.latency = latency_share(self.slots, slot_id, evaluate, rounds=self.config.latency_rounds)

    def conclude(self, evaluate: Evaluate) -> None:
        """Judge every seed for the last time: what has no say yet goes, and what does not help; the rest stays."""
        for slot_id, seedling in list(self.standing.items()):
            slot, cause, decision = self.slots[slot_id], seedling.cause, seedling.decision
            if not self._bed.has_say(slot_id):
                self._life.remove(slot, "the run ended before it had a say", "timeout", decision, cause)
                continue
            if seedling.measured != self.epoch and not self._answered(slot_id, evaluate):
                continue  # nobody knows: it stays as it is
            if slot_id not in self.standing or slot.stage == Stage.FOSSILIZED:
                continue
            gain = None if seedling.contribution is None else seedling.contribution.gain
            if gain is None or not gain > self._bed.bounds.min_contribution:  # a NaN is no help either
                reason = f"the run ended, and it takes {'nothing' if gain is None else f'{gain:.4g}'} off the loss"
                self._life.remove(slot, reason, "timeout", decision, cause)
            elif slot.stage == Stage.HOLDING:
                self._life.go_on(slot)

    def close(self) -> None:
        """Take every hook away. What has grown stays as it is; ramps stop where they are."""
        if self._sentinel is not None:
            self._sentinel.close()
        self._sentinel = None
        self._rescue.forget()

    def failed(self, error: BaseException, what: str) -> None:
        """Say that something of ours went wrong where nothing more is known, and that a person should look."""
        self.counts["failures"] += 1
        line = f"{what}: {type(error).__name__}: {line_of(error)}"[:500]
        _log.warning("growth: %s; training goes on", line)
        self._bed.say(
            SlotFailed(slot=None, seed=None, error="exception", message=line, recovery="escalate", recovered=False)
        )
        self._bed.alert("warning", what, line)

    # Within

    def _checked(self, action: Any) -> Slot | None:
        """Return the slot of an action that makes sense, None for `wait`; raise Refused for one that does not."""
        if not isinstance(action, Action) or not isinstance(action.op, str):
            raise Refused(f"an action is expected, not a {type(action).__name__}")
        if action.op == "wait":
            return None
        if action.op not in self._acts:
            raise Refused(f"there is no action {action.op[:50]!r}")
        if not isinstance(action.slot, str) or action.slot not in self.states or action.slot not in self.slots:
            raise Refused(f"there is no slot {action.slot!r:.100}")
        return self.slots[action.slot]

    def _answered(self, slot_id: str, evaluate: Evaluate) -> bool:
        """Measure what a seed contributes; where `evaluate` raises, tell so and return False."""
        try:
            self.measure(slot_id, evaluate)
        except Exception as error:  # noqa: BLE001  anybody's function
            self.failed(error, EVALUATE)
            return False
        return True

    def _tend(self) -> None:
        """Let embargoes end and stages time out; with `auto`, let the gates move seeds on."""
        for slot in self.slots.values():
            if slot.stage == Stage.EMBARGOED and slot.epochs_in_stage > self.config.embargo:
                for stage in (Stage.RESETTING, Stage.DORMANT):
                    self._life.move(slot, stage, "the embargo is over", "timeout", None, None)
        for slot_id, seedling in list(self.standing.items()):
            slot, limit = self.slots[slot_id], self.config.stage_timeout
            if slot.stage not in LIVE:
                continue
            if limit is not None and slot.epochs_in_stage >= limit:
                reason = f"{slot.epochs_in_stage} epochs in {slot.stage}"
                self._life.remove(slot, reason, "timeout", seedling.decision, seedling.cause)
            elif self.config.auto:
                self._life.go_on(slot)

    def _govern(self, train_loss: float | None, val_loss: float | None) -> None:
        """Look at seeds that were cut off since the last step, and at the losses."""
        for slot_id in list(self.standing):
            reason = self.slots[slot_id].tripped
            if reason and slot_id in {one.slot for one in self._watched()}:
                self._cut([slot_id], error_of(reason), reason, restore=True)
        config = self.config
        found = trouble(val_loss, self._losses, sigma=config.sigma, multiplier=config.multiplier)
        loss = val_loss
        if train_loss is not None and not math.isfinite(train_loss):
            found, loss = ("nonfinite", None), train_loss
        if found is None:
            if val_loss is not None:
                self._losses = [*self._losses, val_loss][-config.window :]
            return
        error, bound = found
        suspects = self._bed.suspects()
        if suspects or (error == "nonfinite" and any(map(self._bed.has_say, self.standing))):
            message = f"the loss is {loss:.4g}" + ("" if bound is None else f", above {bound:.4g}")
            self._cut(suspects, error, message, restore=True, loss=loss, bound=bound)
        elif error == "nonfinite":
            self._bed.alert("warning", "loss", "the loss is not finite, and nothing that has grown has a say in it")

    def _count_steps(self) -> None:
        counted, now = 0 if self._sentinel is None else self._sentinel.steps, self._steps()
        if counted:
            self._bed.steps_an_epoch = counted
        elif now is not None and now > (self._steps_before or 0):
            self._bed.steps_an_epoch = now - (self._steps_before or 0)
        self._steps_before = now

    def _on_trouble(self, trouble: Trouble) -> None:
        """Deal with a step whose gradients were dropped; called from inside `optimizer.step()`."""
        if trouble.slots:
            self._cut(list(trouble.slots), trouble.error, trouble.message, restore=trouble.host)
        elif trouble.strikes >= self.config.strikes:
            message = f"{trouble.message}, {trouble.strikes} steps in a row"
            self._cut(self._bed.suspects(), trouble.error, message, restore=True)

    def _cut(self, slot_ids: list[str], error: str, message: str, **options: Any) -> None:
        self._rescue.cut(slot_ids, error, sound(message), **options)
        if self._sentinel is not None:
            self._sentinel.watch(self._watched())

    def _watched(self) -> list[Watched]:
        """Return the seeds that the sentinel looks at: those that stand, but for one that is off for good."""
        watched = []
        for slot_id, seedling in self.standing.items():
            slot, graft = self.slots[slot_id], self.slots[slot_id].graft
            off = seedling.stage == "fossilized" and seedling.failures > self.config.strikes
            if graft is not None and not off:
                has_say = seedling.stage in {"blending", "holding", "fossilized"}
                watched.append(Watched(slot_id, tuple(slot.params()), has_say, graft.poll))
        return watched


def _asked(action: Any) -> tuple[str, str | None]:
    """Return an action in a few words, and its slot where it names one; of anything at all."""
    if not isinstance(action, Action):
        return sound(repr(action))[:200], None
    slot = sound(action.slot) if isinstance(action.slot, str) else None
    words = [sound(part)[:100] for part in (action.op, action.blueprint, action.alpha) if part is not None]
    return " ".join(words), None if slot is None else slot[:200]
