"""KV states on their way between the sequences of a worker and the places where they are kept; every move is told."""

import time
from typing import Any

from morphogen.kernels.kv import KvState
from morphogen.schemas.kv import (
    Fingerprint,
    KvDecided,
    KvExported,
    KvImported,
    KvRejected,
    KvReleased,
    block_hashes,
    pack_hashes,
)

from .continuity import Session
from .conversation import state_id
from .cost import Choice, Costs, Decision
from .store import Store, Tell
from .telling import rejection


class States:
    """What a worker does with KV states, and what it has learnt of their costs."""

    def __init__(
        self, worker: str, model: str, fingerprint: Fingerprint, store: Store, tell: Tell, force: Choice | None
    ) -> None:
        self.costs = Costs()
        self._name, self._model, self._fingerprint = worker, model, fingerprint
        self._root = fingerprint.digest
        self._store, self._tell, self._force = store, tell, force

    def export(self, session: Session, into: Any, *, tier: str, pinned: bool = False) -> KvExported | None:
        """Write the KV state of a session that is seated; None where nothing of it was computed. It is not told yet."""
        speaker, conversation = session.speaker, session.conversation
        count = speaker.matching(conversation.tokens)
        if count == 0:
            return None
        speaker.truncate(count)
        began = time.monotonic_ns()
        ref = speaker.save(into)
        tokens = conversation.tokens[:count]
        return KvExported(
            state=state_id(self._root, tokens),
            worker=self._name,
            tokens=count,
            size=ref.size,
            tier=tier,
            transport=ref.transport,
            ref=ref,
            root=self._root,
            session=session.name,
            fingerprint=self._fingerprint,
            model=self._model,
            blocks=pack_hashes(block_hashes(tokens, self._root)),
            pinned=pinned,
            duration_ns=time.monotonic_ns() - began,
        )

    def load(
        self,
        session: Session,
        state: KvState,
        tier: str,
        transport: str,
        name: str,
    ) -> None:
        """Put a state into a session's sequence, and tell of it."""
        began = time.perf_counter()
        session.speaker.load(state, session.conversation.tokens[: state.count])
        seconds = time.perf_counter() - began
        self.costs = self.costs.restored(tier, state.size, seconds)
        self.seat(session.name, name)
        self._tell(
            KvImported(
                state=name,
                worker=self._name,
                tokens=state.count,
                size=state.size,
                tier=tier,
                transport=transport,
                root=self._root,
                session=session.name,
                model=self._model,
                blocks=pack_hashes(block_hashes(state.tokens, self._root)),
                duration_ns=int(seconds * 1e9),
            )
        )

    def seat(self, session: str, state: str) -> None:
        """Take note of the state that a session goes on from on the device, before it is told: it is told as there."""
        self._store.hold(f"session {session}", state, "device", session=session)

    def unseat(self, session: str, reason: str, now: str | None = None) -> None:
        """Tell that a session left the device: under the state that it was told with, else under the present one."""
        if self._store.let_go(f"session {session}", reason):
            return
        if now is not None and not self._store.holds(now, "device"):
            self._tell(KvReleased(state=now, worker=self._name, tier="device", reason=reason, session=session))

    def decide(
        self, tokens: int, size: int, tier: str, *, state: str, session: str | None = None, cause: str | None = None
    ) -> Decision:
        """Decide whether a state is restored or computed again, and tell why."""
        decision = self.costs.decide(
            tokens=tokens, size=size, tier=tier, available=tier in self._store.transports, force=self._force
        )
        self._tell(
            KvDecided(
                worker=self._name,
                choice=decision.choice,
                tokens=tokens,
                size=size,
                tier=tier,
                restore_ns=int(decision.restore * 1e9),
                recompute_ns=int(decision.recompute * 1e9),
                bandwidth=decision.bandwidth,
                overhead_ns=int(decision.overhead * 1e9),
                prefill_rate=decision.prefill_rate,
                reason=decision.reason,
                state=state,
                session=session,
            ),
            cause=cause,
        )
        return decision

    def reject(
        self,
        state: str,
        error: Exception | str,
        *,
        source: str | None = None,
        handoff: str | None = None,
        session: str | None = None,
        cause: str | None = None,
    ) -> KvRejected:
        """Tell that a state was not taken, and why."""
        event = rejection(state, self._name, error, source=source, handoff=handoff, session=session)
        self._tell(event, cause=cause)
        return event
