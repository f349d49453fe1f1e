"""The steps of a seed's life, each through its gate and each an event."""

from typing import Any

from morphogen.kernels.slots import CURVES, Slot, Stage, leave, refusal
from morphogen.schemas import Action, SlotAlphaChanged, SlotGate

from .bed import Bed
from .errors import Refused
from .gating import ask, measurements, told
from .state import LIVE

_LONGEST = 1 << 40  # optimizer steps of a ramp


class Life:
    """Moves the seeds of a bed from stage to stage. What is not legal, or not let through, is Refused."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed

    def advance(self, slot: Slot, action: Action, decision: str | None, cause: str | None, initiator: str) -> None:
        """Go on to training, to blending, where the ramp begins, or to holding."""
        following = {
            Stage.GERMINATED: Stage.TRAINING,
            Stage.TRAINING: Stage.BLENDING,
            Stage.BLENDING: Stage.HOLDING,
        }.get(slot.stage)
        if following is None:
            raise Refused(f"{slot.id} is {slot.stage}: it does not advance")
        curve, steps = self._ramp_of(action)
        self.through(slot, following, "advanced", initiator, decision, cause)
        if following == Stage.BLENDING:
            self._ramp(slot, 1.0, steps, curve, decision, cause)

    def set_alpha(self, slot: Slot, action: Action, decision: str | None, cause: str | None, initiator: str) -> None:
        """Move alpha, at once unless the action says over how many steps."""
        alpha: Any = action.alpha
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0.0 <= alpha <= 1.0:
            raise Refused(f"alpha is from 0 to 1, not {alpha!r:.50}")
        if slot.stage not in {Stage.BLENDING, Stage.HOLDING}:
            raise Refused(f"{slot.id} is {slot.stage}: alpha moves while it is blending or holding")
        curve, steps = self._ramp_of(action, default=0)
        if slot.stage == Stage.HOLDING and steps > 0:
            self.move(slot, Stage.BLENDING, "alpha moves", initiator, decision, cause)
        self._ramp(slot, float(alpha), steps, curve, decision, cause)

    def prune(self, slot: Slot, action: Action, decision: str | None, cause: str | None, initiator: str) -> None:
        """Take a seed out that is not judged yet."""
        if slot.stage not in LIVE:
            raise Refused(f"{slot.id} is {slot.stage}: there is nothing to prune")
        self.remove(slot, "pruned by decision" if decision else "pruned", initiator, decision, cause)

    def fossilize(self, slot: Slot, action: Action, decision: str | None, cause: str | None, initiator: str) -> None:
        """Keep a seed for good."""
        if slot.stage != Stage.HOLDING:
            raise Refused(f"{slot.id} is {slot.stage}: only what is holding fossilizes")
        self.through(slot, Stage.FOSSILIZED, "kept", initiator, decision, cause)
        seedling = self._bed.standing[slot.id]
        self._bed.counts["fossilized"] += 1
        self._bed.judged.append(seedling)

    def go_on(self, slot: Slot) -> None:
        """Do what the gates alone allow: advance, fossilize, or prune what has not passed for too long."""
        seedling = self._bed.standing[slot.id]
        if slot.stage == Stage.BLENDING and slot.alpha != seedling.target:
            return
        step = self.fossilize if slot.stage == Stage.HOLDING else self.advance
        try:
            step(slot, Action(op="advance", slot=slot.id), seedling.decision, seedling.cause, "gate")
        except Refused as refused:
            if slot.stage == Stage.HOLDING and slot.epochs_in_stage >= self._bed.config.patience:
                self.remove(slot, str(refused), "gate", seedling.decision, seedling.cause)

    def through(
        self, slot: Slot, stage: Stage, reason: str, initiator: str, decision: str | None, cause: str | None
    ) -> None:
        """Go to a stage by its gate."""
        bed = self._bed
        why = refusal(slot.stage, stage)
        if why is not None:
            raise Refused(f"{slot.id}: {why}")
        seedling = bed.standing[slot.id]
        measured = measurements(slot, seedling, bed.health.get(slot.id), bed.epoch)
        result = ask(slot, stage, measured, bed.bounds)
        bed.say(
            SlotGate(
                slot=slot.id,
                seed=seedling.seed,
                gate=result.gate,
                passed=result.passed,
                checks_passed=list(result.checks_passed),
                checks_failed=list(result.checks_failed),
                measured=told(measured),
            ),
            cause,
        )
        if not result.passed:
            raise Refused(f"{slot.id}: gate {result.gate} says no: {', '.join(result.checks_failed)}")
        self.move(slot, stage, reason, initiator, decision, cause)

    def move(
        self, slot: Slot, stage: Stage, reason: str, initiator: str, decision: str | None, cause: str | None
    ) -> None:
        """Go to a stage that no gate stands before."""
        before, epochs = str(slot.stage), slot.epochs_in_stage
        slot.to(stage, reason)
        self._bed.say_stage(slot, before, reason, initiator, decision, cause, epochs)
        if slot.id in self._bed.standing:
            self._bed.standing[slot.id].stage = str(stage)

    def remove(self, slot: Slot, reason: str, initiator: str, decision: str | None, cause: str | None) -> None:
        """Take a seed out of the optimizer and out of the model; its slot rests."""
        leave(self._bed.optimizer, slot)
        self.move(slot, Stage.PRUNED, reason, initiator, decision, cause)
        self.move(slot, Stage.EMBARGOED, "the slot rests", initiator, decision, cause)
        seedling = self._bed.standing.pop(slot.id)
        seedling.stage = "pruned"
        self._bed.counts["pruned"] += 1
        self._bed.judged.append(seedling)

    def tell_ramp(self, slot: Slot, cause: str | None) -> None:
        """Say where alpha is, and what is left of its ramp, in a slot that was restored."""
        seedling, state = self._bed.standing[slot.id], slot.ramp_state()
        ramp, done = (None, 0) if state is None else state
        self._bed.say(
            SlotAlphaChanged(
                slot=slot.id,
                seed=seedling.seed,
                alpha_from=slot.alpha,
                alpha_to=slot.target,
                ramp="linear" if ramp is None else ramp.curve,
                steps=0 if ramp is None else ramp.steps - done,
                blend=slot.blend or "add",
            ),
            cause,
        )

    def _ramp(self, slot: Slot, alpha: float, steps: int, curve: str, decision: str | None, cause: str | None) -> None:
        seedling, before = self._bed.standing[slot.id], slot.alpha
        slot.ramp(alpha, steps, curve)
        seedling.target = alpha
        self._bed.say(
            SlotAlphaChanged(
                slot=slot.id,
                seed=seedling.seed,
                alpha_from=before,
                alpha_to=alpha,
                ramp=curve,
                steps=steps,
                blend=slot.blend or "add",
                decision=decision,
            ),
            cause,
        )

    def _ramp_of(self, action: Action, default: int | None = None) -> tuple[str, int]:
        """Return the curve and the number of steps of a ramp: the action's, else the bounds', else by epochs."""
        bed = self._bed
        curve: Any = action.ramp or bed.bounds.ramp
        if curve not in CURVES:
            raise Refused(f"there is no ramp {curve!r:.50}: {', '.join(CURVES)}")
        steps: Any = default if action.steps is None else action.steps
        if steps is None:
            steps = bed.bounds.ramp_steps or round(bed.config.ramp_epochs * (bed.steps_an_epoch or 0))
        if isinstance(steps, bool) or not isinstance(steps, int) or not 0 <= steps <= _LONGEST:
            raise Refused(f"a ramp takes 0 steps or more, not {steps!r:.50}")
        return curve, steps
