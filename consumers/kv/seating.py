"""Who sits on which sequence of a worker's context.

Who has no sequence gets the one of the session that was used longest ago: that one's state goes to memory, from there to
the disk and on, as budgets allow, and comes back with it.
"""

import itertools
import math
from collections.abc import Mapping
from contextlib import suppress

from morphogen.kernels.kv import RawContext
from morphogen.schemas.kv import KvEvicted, KvExported

from .continuity import Session
from .conversation import state_id
from .errors import NoRoomLeft
from .speaker import ContextSpeaker
from .states import States
from .store import LOST, Store, Tell


class Seating:
    """The sequences of a context, and the sessions (by name) that share them."""

    def __init__(
        self,
        context: RawContext,
        sessions: Mapping[str, Session],
        states: States,
        store: Store,
        *,
        tell: Tell,
        name: str,
        root: str,
    ) -> None:
        self.busy: set[str] = set()
        """Sessions that nobody else may put aside: a turn runs, or a handoff."""
        self._context, self._sessions, self._states, self._store = context, sessions, states, store
        self._tell, self._name, self._root = tell, name, root
        self._parked: dict[str, str] = {}  # session -> state
        self._used: dict[str, int] = {}
        self._clock = itertools.count(1)

    def seat(self, session: Session) -> None:
        """Have a session sit on a sequence; its KV state is restored, or left to be computed again.

        Raises NoRoomLeft where every sequence is at work.
        """
        name, speaker = session.name, speaker_of(session)
        self.used(name)
        if speaker.seq is None:
            speaker.seq = self.free()
            speaker.truncate(0)
            state = self._parked.pop(name, None)
            if state is not None:
                try:
                    self._bring_back(session, state)
                except NoRoomLeft:
                    self._vacate(speaker)
                    self._parked[name] = state
                    raise

    def used(self, name: str) -> None:
        """Note that a session was used just now."""
        self._used[name] = next(self._clock)

    def resume(self, session: Session) -> bool:
        """Seat a session in the middle of its reply; False while those at work have no room for it beside them."""
        if speaker_of(session).seq is None:
            others = self._at_work(None)
            room = self._context.room if self._context.params.kv_unified else math.inf
            tokens = sum(speaker.count for speaker in others) + len(session.conversation.tokens)
            if others and (len(others) >= self._context.sequences or tokens >= room):
                return False
        with suppress(NoRoomLeft):
            self.seat(session)
            return True
        return False

    def park(self, session: Session) -> None:
        """Take a session off its sequence; its state goes into memory, or the next tier that has room, or away."""
        name = session.name
        exported: KvExported | None = None
        speaker, tokens = speaker_of(session), session.conversation.tokens
        same = self._store.get(state_id(self._root, tokens[: speaker.matching(tokens)]))
        if same is not None:  # stored already, as another session's that stands at the same words
            item, _ = same
            self._store.touch(item.state)
            self._parked[name] = item.state
            self._put_aside(session, item.state, item.tier, item.size)
            return
        for tier, transport in self._store.transports.items():
            if self._store.shelf.budgets.get(tier, 0) <= 0:
                continue
            with suppress(NoRoomLeft, *LOST):
                exported = self._states.export(session, transport, tier=tier)
                if exported is None:
                    break
                try:
                    self._store.put(exported)
                except NoRoomLeft:
                    exported = None
                    raise
                self._parked[name] = exported.state
                break
        if exported is None:
            self._put_aside(session, state_id(self._root, tokens), None, 0)
        else:
            self._put_aside(session, exported.state, exported.tier, exported.size)

    def parked(self, name: str) -> str | None:
        """Return the state in which a session was put aside, None where it was not, or its state was given up."""
        return self._parked.get(name)

    def found(self, name: str, state: str) -> None:
        """Note that a session's state lies in the store, from an earlier process."""
        self._parked[name] = state

    def free(self) -> int:
        """Return a sequence on which nobody sits; a session is put aside for it where all are taken. Raises NoRoomLeft."""
        taken = {speaker_of(session).seq for session in self._sessions.values()}
        for seq in range(self._context.sequences):
            if seq not in taken:
                return seq
        oldest = self._oldest()
        if oldest is None:
            raise NoRoomLeft(
                f"all {self._context.sequences} sequences of worker {self._name} are at work: try again, or start it with "
                "more (--parallel)"
            )
        freed = speaker_of(self._sessions[oldest]).seq
        assert freed is not None
        self.park(self._sessions[oldest])
        return freed

    def relieve(self, seq: int) -> bool:
        """Make room in a cache that sequences share, for one of them: another session is put aside.

        Raises NoRoomLeft where all others are at work: this one may have room when they are done.
        """
        if not self._context.params.kv_unified:
            return False
        oldest = self._oldest(apart_from=seq)
        if oldest is not None:
            self.park(self._sessions[oldest])
        elif self._at_work(seq):
            raise NoRoomLeft(
                f"worker {self._name} has no room for this session beside those at work: try again later, or start it with "
                "a larger context (--ctx)"
            )
        return oldest is not None

    def leave(self, session: Session, reason: str) -> None:
        """Take a session off its sequence for good."""
        speaker = speaker_of(session)
        if speaker.seq is None:
            return
        state = state_id(self._root, session.conversation.tokens[: speaker.count])
        self._vacate(speaker)
        self._states.unseat(session.name, reason, state)

    def forget(self, name: str) -> str | None:
        """Forget a session; return the state in which it was put aside, None where it was not."""
        self._used.pop(name, None)
        return self._parked.pop(name, None)

    def needed(self, state: str) -> bool:
        """Return whether a session that was put aside comes back by a stored state."""
        return state in self._parked.values()

    def _put_aside(self, session: Session, state: str, tier: str | None, size: int) -> None:
        self._vacate(speaker_of(session))
        stored = self._store.get(state) if tier else None
        self._tell(
            KvEvicted(
                state=state,
                worker=self._name,
                from_tier="device",
                to_tier=tier,
                size=size,
                reason="demand",
                ref=stored[1] if stored else None,
                session=session.name,
            )
        )
        self._states.unseat(session.name, "replaced")

    def _oldest(self, apart_from: int | None = None) -> str | None:
        """Return which session may lose its sequence: the one that was used longest ago and is not at work."""
        idle = [
            name
            for name, session in self._sessions.items()
            if speaker_of(session).seq not in {None, apart_from} and name not in self.busy
        ]
        return min(idle, key=lambda name: (self._used.get(name, 0), name), default=None)

    def _at_work(self, apart_from: int | None) -> list[ContextSpeaker]:
        """Return the speakers that hold cells and may not be put aside."""
        speakers = [speaker_of(session) for name, session in self._sessions.items() if name in self.busy]
        return [speaker for speaker in speakers if speaker.seq not in {None, apart_from}]

    def _vacate(self, speaker: ContextSpeaker) -> None:
        if speaker.seq is not None:
            self._context.drop(speaker.seq)
            speaker.seq = None

    def _bring_back(self, session: Session, state: str) -> None:
        """Restore a parked session's state, or leave it to be computed, as the costs say."""
        stored = self._store.get(state)
        if stored is None:
            return
        item, ref = stored
        decision = self._states.decide(item.tokens, item.size, item.tier, state=state, session=session.name)
        if decision.choice == "restore":
            try:
                with self._store.opened(ref, item.tier) as opened:
                    self._states.load(session, opened, item.tier, ref.transport, state)
            except LOST as error:
                self._states.reject(state, error, session=session.name)
        if not item.pinned and not self.needed(state):
            self._store.drop(state, "replaced")
        else:
            self._store.touch(state)
        here = speaker_of(session).count
        self._tell(session.loaded(here, len(session.conversation.tokens) - here))


def speaker_of(session: Session) -> ContextSpeaker:
    """Return the speaker of a worker's session."""
    assert isinstance(session.speaker, ContextSpeaker)
    return session.speaker
