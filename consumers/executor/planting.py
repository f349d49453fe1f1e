"""How a seed comes into a slot: allowed, made, put there, and into the optimizer; or all as it was."""

import time
from collections.abc import Callable

from torch import nn

from morphogen.kernels.slots import Slot, SlotError, Stage, join, leave, refusal
from morphogen.schemas import Action, SlotFailed, SlotGerminated, line_of

from .bed import Bed
from .errors import Refused
from .life import Life
from .ranks import apart, ranks
from .rescue import Rescue
from .retry import retried
from .seedling import Seedling
from .state import LIVE
from .stock import Item, Stock, rng_seed

_WAY = (Stage.GERMINATED, Stage.TRAINING, Stage.BLENDING, Stage.HOLDING, Stage.FOSSILIZED)


class Planting:
    """Germinates what is in stock. What may not be, or cannot be, is Refused, and nothing is left of the attempt."""

    def __init__(
        self,
        bed: Bed,
        life: Life,
        rescue: Rescue,
        stock: Stock,
        seed: int,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._bed, self._life, self._rescue, self._sleep = bed, life, rescue, sleep
        self.stock, self._seed = stock, seed

    def germinate(self, slot: Slot, action: Action, decision: str | None, cause: str | None, initiator: str) -> None:
        """Put a seed of the blueprint that `action` names into `slot`; it then trains."""
        item = self._allowed(slot, action)
        self._rescue.trying()
        config, seed_id = self._bed.config, f"{slot.id}.{slot.germinated + 1}"
        seed = rng_seed(self._seed, seed_id)
        tried = retried(
            lambda: item.make(seed, zero_last=config.zero_init),
            retries=config.retries,
            backoff=config.backoff,
            sleep=self._sleep,
        )
        for attempt, error in enumerate(tried.failures, 1):
            recovered = tried.result is not None
            self._failed(slot, None, item, error.kind, str(error), "retry", cause, recovered=recovered, attempt=attempt)
        if tried.result is None:
            self._rescue.blame(item.address, str(tried.failures[-1]))
            raise Refused(f"{item.name} could not be made: {tried.failures[-1]}")
        self._put(slot, item, tried.result, seed_id, seed, cause)
        told = self._told(slot, item, seed_id, seed, decision, cause)
        self._bed.say_stage(slot, "dormant", f"{item.name}: germinated", initiator, decision, cause)
        self._life.through(slot, Stage.TRAINING, "it stands", "gate", decision, told or cause)

    def adopt(self, slot: Slot) -> None:
        """Take over a seed that stands already, in a model that was restored: say what it is and how it came there.

        It counts as the log now has it, among those that germinated and were kept; one that was off for good stays off.
        """
        graft = slot.graft
        if graft is None or slot.id in self._bed.standing:
            return
        join(self._bed.optimizer, slot)
        items = {item.address: item for item in self.stock.get(slot.site, {}).values()}
        address = slot.blueprint or ""
        params = sum(p.numel() for p in slot.params())
        item = items.get(address)
        kept, off = slot.stage == Stage.FOSSILIZED, slot.tripped
        self._bed.counts["germinated"] += 1  # the log of this attempt knows of no other germination
        self._bed.counts["fossilized"] += kept
        told = self._bed.say(
            SlotGerminated(
                slot=slot.id,
                seed=graft.seed_id,
                blueprint=address,
                params=params,
                flops=None if item is None else item.flops,
                rng_seed=slot.generator_seed,
            )
        )
        self._bed.standing[slot.id] = Seedling(
            slot=slot.id,
            seed=graft.seed_id,
            name=address[:12] if item is None else item.name,
            address=address,
            params=params,
            epoch=self._bed.epoch,
            decision=None,
            cause=told,
            stage=str(slot.stage),
            target=slot.target,
            failures=self._bed.config.strikes + 1 if kept and off is not None else 0,
        )
        before = "dormant"
        for stage in _WAY[: _WAY.index(slot.stage) + 1]:
            self._bed.say_stage(slot, before, "restored", "user", None, told, stage=str(stage))
            before = str(stage)
        if slot.stage in {Stage.BLENDING, Stage.HOLDING}:
            self._life.tell_ramp(slot, told)
        if kept and off is not None:
            self._bed.alert("critical", slot.id, f"a fossilized seed gives no output, as before: {off}")

    def _allowed(self, slot: Slot, action: Action) -> Item:
        """Return the item that an action would germinate; raise Refused where it may not."""
        why = refusal(slot.stage, Stage.GERMINATED)
        if why is not None:
            raise Refused(f"{slot.id}: {why}")
        if (number := ranks()) > 1:
            raise Refused(f"{slot.id}: {apart(number)}")
        named = action.blueprint if isinstance(action.blueprint, str) else ""
        item = self.stock.get(slot.site, {}).get(named)
        if item is None:
            raise Refused(f"the menu of {slot.site} has no {action.blueprint!r:.100}")
        why = self._rescue.forbids(item.address)
        if why is not None:
            raise Refused(f"{item.name} is not germinated: {why}")
        bounds = self._bed.bounds
        standing = [self._bed.states[slot_id] for slot_id in self._bed.standing]
        active = sum(state.stage in LIVE for state in standing)
        params = sum(state.params for state in standing) + item.params
        flops = sum(state.flops or 0 for state in standing) + (item.flops or 0)
        for have, most, what in (
            (active + 1, bounds.max_active, "seeds that are not judged yet"),
            (len(standing) + 1, bounds.max_fossilized, "seeds that stand"),
            (params, bounds.max_params, "grown parameters"),
            (flops, bounds.max_flops, "grown FLOPs"),
        ):
            if most is not None and have > most:
                raise Refused(f"{item.name} at {slot.site} would make {have} {what}, {most} may be")
        return item

    def _put(self, slot: Slot, item: Item, module: nn.Module, seed_id: str, seed: int, cause: str | None) -> None:
        """Put a seed into its slot and its parameters into the optimizer, or leave both as they were."""
        config = self._bed.config
        try:
            slot.germinate(
                module,
                blueprint=item.address,
                generator_seed=seed,
                blend=config.blend,
                isolate=config.isolate,
                spec=item.spec,
            )
            join(self._bed.optimizer, slot)
        except Exception as error:
            kind = "shape" if isinstance(error, SlotError) else "exception"
            whole = self._taken_back(slot)
            self._failed(slot, seed_id, item, kind, line_of(error), "fallback", cause, recovered=whole)
            self._rescue.blame(item.address, line_of(error))
            raise Refused(f"{item.name} does not stand at {slot.site}: {line_of(error)}") from error

    def _taken_back(self, slot: Slot) -> bool:
        """Undo a germination that failed half way; return whether the slot is free and the optimizer clean."""
        if slot.graft is None:
            return slot.stage == Stage.DORMANT
        ids = [id(p) for p in slot.params()]
        if self._bed.optimizer_holds(ids):
            leave(self._bed.optimizer, slot)
        for stage in (Stage.PRUNED, Stage.EMBARGOED, Stage.RESETTING, Stage.DORMANT):
            slot.to(stage, "did not stand")
        return not self._bed.optimizer_holds(ids)

    def _told(
        self, slot: Slot, item: Item, seed_id: str, seed: int, decision: str | None, cause: str | None
    ) -> str | None:
        """Say that a seed stands, and keep its record; return the id of that event."""
        params = sum(p.numel() for p in slot.params())
        self._bed.counts["germinated"] += 1
        event = SlotGerminated(
            slot=slot.id,
            seed=seed_id,
            blueprint=item.address,
            params=params,
            flops=item.flops,
            rng_seed=seed,
            artifact=item.artifact_digest,
            decision=decision,
        )
        told = self._bed.say(event, cause)
        self._bed.standing[slot.id] = Seedling(
            slot=slot.id,
            seed=seed_id,
            name=item.name,
            address=item.address,
            params=params,
            epoch=self._bed.epoch,
            decision=decision,
            cause=told or cause,
        )
        return told

    def _failed(
        self,
        slot: Slot,
        seed_id: str | None,
        item: Item,
        error: str,
        message: str,
        recovery: str,
        cause: str | None,
        *,
        recovered: bool,
        attempt: int = 1,
    ) -> None:
        self._bed.counts["failures"] += 1
        self._bed.say(
            SlotFailed(
                slot=slot.id,
                seed=seed_id,
                error=error,
                message=message[:500],
                recovery=recovery,
                recovered=recovered,
                attempt=attempt,
                blueprint=item.address,
            ),
            cause,
        )
