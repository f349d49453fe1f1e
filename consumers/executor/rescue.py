"""Out of trouble: cut a seed off, take the host back, and remember what failed.

What is called recovered was looked at afterwards: the seed is out of model and optimizer, the weights are those of the
copy, the second try has worked.
"""

from morphogen.schemas import ArtifactQuarantined, BreakerChanged, HostRestored, SlotFailed

from .bed import Bed
from .breaker import Breaker
from .life import Life
from .seedling import Seedling
from .snapshot import Snapshot, unbounded


class Rescue:
    """Keeps the last good weights, the circuit breaker, and the list of blueprints that are not used any more."""

    def __init__(self, bed: Bed, life: Life) -> None:
        self._bed, self._life = bed, life
        config = bed.config
        self.breaker = Breaker("growth", config.breaker_failures, config.breaker_epochs, config.breaker_successes)
        self.quarantined: dict[str, str] = {}
        """Blueprints that are not used any more, by address: why."""
        self._failures: dict[str, int] = {}
        self._snapshot: Snapshot | None = None
        self._unbounded: frozenset[str] | None = None  # what the host holds infinities in by itself

    # Before a germination

    def forbids(self, address: str) -> str | None:
        """Return why a blueprint may not be germinated now, or None."""
        if address in self.quarantined:
            return f"in quarantine: {self.quarantined[address]}"
        if not self.breaker.lets_through:
            return f"{self.breaker.failures} failures in a row, the breaker is {self.breaker.state}"
        return None

    def trying(self) -> None:
        """Tell the breaker that a germination is tried."""
        self.breaker = self.breaker.tried()

    def blame(self, address: str, reason: str) -> None:
        """Count a failure of a blueprint; too many put it into quarantine, and too many in a row open the breaker."""
        self._failures[address] = self._failures.get(address, 0) + 1
        if self._failures[address] >= self._bed.config.quarantine_after and address not in self.quarantined:
            self.quarantined[address] = reason[:200]
            failures = self._failures[address]
            self._bed.say(ArtifactQuarantined(blueprint=address, reason=reason[:500], failures=failures))
        self._turn(self.breaker.failed(max(self._bed.epoch, 0)))

    # As time passes

    def pass_epoch(self) -> None:
        """Let an open breaker rest."""
        self._turn(self.breaker.at(self._bed.epoch))

    def prove(self) -> None:
        """Tell the breaker of seeds that have lived through an epoch of training."""
        for seedling in self._bed.standing.values():
            if not seedling.proven and self._bed.epoch > seedling.epoch:
                seedling.proven = True
                self._turn(self.breaker.succeeded())

    def keep(self, step: int) -> None:
        """Copy the weights, if they are good, while anything stands; else forget the copy."""
        bed = self._bed
        if not bed.standing:
            self._snapshot = None
        elif bed.config.rollback:
            root = bed.slots.root
            if self._unbounded is None or not any(map(bed.has_say, bed.standing)):
                self._unbounded = unbounded(root)  # no seed has brought them there
            taken = Snapshot.take(root, bed.optimizer, step, unbounded=self._unbounded)
            self._snapshot = taken or self._snapshot

    def forget(self) -> None:
        """Give the memory of the copy back."""
        self._snapshot = None

    # In trouble

    def cut(
        self,
        slot_ids: list[str],
        error: str,
        message: str,
        *,
        restore: bool,
        loss: float | None = None,
        bound: float | None = None,
    ) -> None:
        """Take seeds out of the model at once and, where they had a say, put the host back to its last good weights.

        Without any slot only the host goes back. A fossilized seed is a part of the host and goes back with it.
        """
        had_say = any(map(self._bed.has_say, slot_ids)) or not slot_ids
        cut = [self._bed.standing[slot_id] for slot_id in slot_ids]
        for seedling in cut:
            seedling.failures += 1
            self._bed.counts["failures"] += 1
            if seedling.stage != "fossilized":
                self._cut_one(seedling, error, message)
        back = restore and had_say and self._restore(cut, error, loss, bound)
        for seedling in cut:
            if seedling.stage == "fossilized":
                self._rearm(seedling, error, message, restored=back)

    def _cut_one(self, seedling: Seedling, error: str, message: str) -> None:
        slot = self._bed.slots[seedling.slot]
        ids = [id(p) for p in slot.params()]
        reason = f"{error}: {message}" if not message.startswith(error) else message
        self._life.remove(slot, reason[:500], "governor", seedling.decision, seedling.cause)
        gone = slot.graft is None and not self._bed.optimizer_holds(ids)
        self._say(seedling, error, message, "cut", recovered=gone)
        self.blame(seedling.address, reason)

    def _restore(self, cut: list[Seedling], error: str, loss: float | None, bound: float | None) -> bool:
        """Put the host back, if there is a copy; return whether it is back."""
        snapshot, bed = self._snapshot, self._bed
        if snapshot is None:
            if bed.config.rollback:
                bed.alert(
                    "critical", "rollback", "there are no good weights to go back to: none were good since growth began"
                )
            return False
        whole = snapshot.restore(bed.optimizer)
        bed.counts["rollbacks"] += 1
        newest = cut[-1] if cut else None
        bed.say(
            HostRestored(
                reason=error if error in {"nonfinite", "exploding"} else "lost_sense",
                snapshot_step=snapshot.step,
                loss=loss,
                threshold=bound,
                slots=[seedling.slot for seedling in cut],
                decision=None if newest is None else newest.decision,
            ),
            None if newest is None else newest.cause,
        )
        if not whole:
            bed.alert("critical", "rollback", "the host's weights are not those of the last good state")
        return whole

    def _rearm(self, seedling: Seedling, error: str, message: str, *, restored: bool) -> None:
        """Let a fossilized seed speak again after its weights were put back, unless that has not helped before."""
        slot = self._bed.slots[seedling.slot]
        again = restored and seedling.failures <= self._bed.config.strikes
        graft = slot.graft
        if again and graft is not None:
            graft.tripped = None
            graft.trips.zero_()
            self._bed.slots.settle()
        elif graft is not None:  # what went wrong may be its gradients, by which no output is cut off
            graft.tripped = slot.tripped or f"{error}: {message}"
            self._bed.slots.settle()
        recovery = "rollback" if again else "fallback"
        self._say(seedling, error, message, recovery, recovered=not again or slot.tripped is None)
        if not again:
            self._bed.alert("critical", slot.id, f"a fossilized seed gives no output any more: {message}")

    def _say(self, seedling: Seedling, error: str, message: str, recovery: str, *, recovered: bool) -> None:
        self._bed.say(
            SlotFailed(
                slot=seedling.slot,
                seed=seedling.seed,
                error=error,
                message=message[:500],
                recovery=recovery,
                recovered=recovered,
                blueprint=seedling.address,
            ),
            seedling.cause,
        )

    def _turn(self, now: Breaker) -> None:
        before, self.breaker = self.breaker, now
        if before.state == now.state:
            return
        self._bed.say(BreakerChanged(name=now.name, from_state=before.state, to_state=now.state, failures=now.failures))
        if now.state == "open":
            message = f"{now.failures} failures in a row: nothing is germinated for {now.rest} epochs"
            self._bed.alert("warning", "growth", message)
