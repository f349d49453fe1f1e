"""What a worker holds: sessions, the sequences they sit on, and stored KV states in their tiers.

Everything here runs in the one thread that computes, so nothing needs a lock. Who has no sequence gives up the least
recently used one's: that session's state goes to memory, from there to the disk and on, as budgets allow.
"""

import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from morphogen.kernels.kv import IsolatedImporter, KvState, RawContext
from morphogen.schemas import token
from morphogen.schemas.kv import (
    Fingerprint,
    KvEvicted,
    KvExported,
    KvReleased,
    SessionLoaded,
)

from .continuity import Session
from .conversation import state_id
from .cost import Choice
from .errors import ContinuityError, NoRoomLeft, SessionBusy, SessionError
from .gone import Gone
from .journal import NAME, Journal
from .prompts import render_of
from .speaker import ContextSpeaker
from .states import States
from .store import LOST, Store, Tell
from .wire import SessionInfo

_ARRIVING, _GONE = ".arriving-", ".gone"  # no token of a name begins with a dot


class House:
    """Sessions of one worker, and its sequences."""

    def __init__(
        self,
        context: RawContext,
        fingerprint: Fingerprint,
        *,
        name: str,
        model: str,
        folder: Path,
        store: Store,
        tell: Tell,
        cache: Path | None = None,
        every: int | None = 512,
        template: bool = True,
        force: Choice | None = None,
        importer: IsolatedImporter | None = None,
    ) -> None:
        self.context, self.fingerprint, self.name, self.model = context, fingerprint, name, model
        self.root = fingerprint.digest
        self.store = store
        self.states = States(name, model, fingerprint, store, tell, force)
        self.sessions: dict[str, Session] = {}
        self.busy: set[str] = set()
        """Sessions that may not lose their sequence: a turn runs, or a handoff."""
        self._folder, self.tell, self._cache, self._every = folder, tell, cache, every
        self._importer = importer
        spare = ContextSpeaker(context, fingerprint=fingerprint)
        self._render = render_of(spare.template() if template else None)  # once: a template takes milliseconds to read
        self._parked: dict[str, str] = {}  # session -> state
        self._used: dict[str, int] = {}
        self._clock = itertools.count(1)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self._folder.glob(f"{_ARRIVING}*"):
            shutil.rmtree(left, ignore_errors=True)
        self._gone = Gone(self._folder / _GONE)

    # ------------------------------------------------------------------ sessions

    def known(self, name: str) -> bool:
        """Tell whether a session of that name is here, open or in a journal that an earlier process left."""
        return name in self.sessions or (self.place(name) / NAME).is_file()

    def had(self, name: str, handoff: str) -> bool:
        """Tell whether a handoff brought a session here, which may have gone on since."""
        return handoff in self._gone or (self.known(name) and handoff in self.session(name).conversation.handoffs)

    def place(self, name: str) -> Path:
        """Return the folder of a session."""
        return self._folder / token(name)

    def session(self, name: str, *, create: bool = True) -> Session:
        """Return a session, from its journal if need be, whether or not it sits on a sequence.

        Raises SessionError where there is none and none is to be made.
        """
        found = self.sessions.get(name)
        if found is None:
            if not create and not self.known(name):
                raise SessionError(f"worker {self.name} has no session {name!r}: see `morphogen kv list`")
            found = self.sessions[name] = self._open(name)
        return found

    def seated(self, name: str, *, create: bool = True) -> Session:
        """Return a session that sits on a sequence; its KV state is restored, or left to be computed again.

        Raises NoRoomLeft where every sequence is at work.
        """
        session = self.session(name, create=create)
        speaker = self._speaker(session)
        self._used[name] = next(self._clock)
        if speaker.seq is None:
            speaker.seq = self._free_sequence()
            speaker.truncate(0)
            if name in self._parked:
                self._bring_back(session, self._parked.pop(name))
        return session

    @contextmanager
    def speaking(self, name: str) -> Iterator[Session]:
        """Seat a session for something to be said in it; where that is refused, one that began with it is not left."""
        fresh = not self.known(name)
        try:
            yield self.seated(name)
        except ContinuityError:
            if fresh and self.known(name):
                self.forget(name, "dropped")
            raise

    def infos(self) -> list[SessionInfo]:
        """Return what is here, by name."""
        infos = []
        for name, session in sorted(self.sessions.items()):
            tier = "device" if self._speaker(session).seq is not None else None
            if name in self._parked and (stored := self.store.get(self._parked[name])) is not None:
                tier = stored[0].tier
            infos.append(
                SessionInfo(
                    session=name,
                    tokens=len(session.conversation.tokens),
                    turns=session.conversation.turns,
                    pending=session.pending,
                    tier=tier,
                    running=name in self.busy,
                )
            )
        return infos

    def forget(self, name: str, reason: str) -> None:
        """Give a session up, with its journal and whatever was stored of it and is not pinned."""
        session = self.session(name, create=False)
        with suppress(OSError):  # a full disk is no reason to keep what another worker has
            self._gone.add(session.conversation.handoffs)
        self._leave(session, reason)
        del self.sessions[name]
        session.close()
        self._used.pop(name, None)
        state = self._parked.pop(name, None)
        stored = self.store.get(state or "")
        if stored is not None and not stored[0].pinned and state not in self._parked.values():
            self.store.drop(stored[0].state, reason)
        shutil.rmtree(self.place(name), ignore_errors=True)

    def adopt(self, name: str, journal: bytes, state: KvState | None) -> Session:
        """Take a session over: its journal, and its KV state where one comes along. All of it is here, or nothing.

        Raises what refused the state, SessionBusy where there is a session of that name.
        """
        if self.known(name):
            raise SessionBusy(f"worker {self.name} has a session {name!r} already: hand it over under another name")
        folder, arriving = self.place(name), self._folder / f"{_ARRIVING}{token(name)}"
        seq = self._free_sequence()
        session: Session | None = None
        try:
            for left in (folder, arriving):  # by a kill, in the middle of forgetting it or of this
                shutil.rmtree(left, ignore_errors=True)
            arriving.mkdir(mode=0o700)
            (arriving / NAME).write_bytes(journal)
            session = self._open(name, arriving)
            speaker = self._speaker(session)
            speaker.seq = seq
            speaker.truncate(0)
            if state is not None:
                speaker.load(state, session.conversation.tokens[: state.count])
            session.settle_in(folder)  # only now there is a session of that name, whoever is killed
        except BaseException:
            if session is not None:
                session.close()
            self.context.drop(seq)
            shutil.rmtree(arriving, ignore_errors=True)
            raise
        self.sessions[name] = session
        self._used[name] = next(self._clock)
        return session

    def fork(self, name: str, copy: str) -> Session:
        """Let a new session go on from where another one stands, within this context: no byte of KV is moved."""
        session = self.seated(name, create=False)
        if self.known(copy):
            raise SessionBusy(f"worker {self.name} has a session {copy!r} already: choose another name")
        self.busy.add(name)
        try:
            made = self.adopt(copy, session.journal.whole(), None)
        finally:
            self.busy.discard(name)
        source, target = self._speaker(session).seq, self._speaker(made).seq
        assert source is not None
        assert target is not None
        if self._speaker(session).count:
            self.context.copy(source, target)
        return made

    # ------------------------------------------------------------------ states

    def export(self, name: str, into: Any, *, tier: str, pinned: bool = False) -> KvExported | None:
        """Write the KV state of a session into a transport or a file; None where nothing of it was computed.

        The caller tells the event, or keeps the state by `keep`.
        """
        return self.states.export(self.seated(name, create=False), into, tier=tier, pinned=pinned)

    def keep(self, name: str, tier: str, *, pin: bool = False) -> KvExported:
        """Write the KV state of a session into a tier, where it stays as budgets allow; the event is told.

        Raises NoRoomLeft where the budget says no, ContinuityError where there is nothing to store.
        """
        exported = self.export(name, self.store.transport(tier), tier=tier, pinned=pin)
        if exported is None:
            raise ContinuityError(f"session {name!r} holds nothing yet: let it read or say something first")
        self.store.put(exported)
        return exported

    def park(self, name: str) -> None:
        """Take a session off its sequence; its state goes into memory, or the next tier that has room, or away."""
        session = self.sessions[name]
        exported: KvExported | None = None
        speaker, tokens = self._speaker(session), session.conversation.tokens
        same = self.store.get(state_id(self.root, tokens[: speaker.matching(tokens)]))
        if same is not None:  # stored already, as another session's that stands at the same words
            item, _ = same
            self.store.touch(item.state)
            self._parked[name] = item.state
            self._put_aside(session, item.state, item.tier, item.size)
            return
        for tier, transport in self.store.transports.items():
            if self.store.shelf.budgets.get(tier, 0) <= 0:
                continue
            with suppress(NoRoomLeft, *LOST):
                exported = self.export(name, transport, tier=tier)
                if exported is None:
                    break
                try:
                    self.store.put(exported)
                except NoRoomLeft:
                    exported = None
                    raise
                self._parked[name] = exported.state
                break
        if exported is None:
            self._put_aside(session, state_id(self.root, tokens), None, 0)
        else:
            self._put_aside(session, exported.state, exported.tier, exported.size)

    def _put_aside(self, session: Session, state: str, tier: str | None, size: int) -> None:
        self._vacate(self._speaker(session))
        stored = self.store.get(state) if tier else None
        self.tell(
            KvEvicted(
                state=state,
                worker=self.name,
                from_tier="device",
                to_tier=tier,
                size=size,
                reason="demand",
                ref=stored[1] if stored else None,
                session=session.name,
            )
        )

    def close(self) -> None:
        """End: journals stay, with KV states beside them or on the disk; what only this process holds is given back."""
        for session in self.sessions.values():
            if self._speaker(session).seq is not None:
                session.save_continuity()
            session.close()
        self.store.close()

    # ------------------------------------------------------------------ inside

    def _open(self, name: str, folder: Path | None = None) -> Session:
        def timed(tokens: int, seconds: float) -> None:
            if tokens > 1:
                self.states.costs = self.states.costs.prefilled(tokens, seconds)

        speaker = ContextSpeaker(
            self.context,
            fingerprint=self.fingerprint,
            cache=self._cache,
            timed=timed,
            relieve=self._relieve,
            importer=self._importer,
        )
        folder = folder or self.place(name)
        session = Session(
            name,
            speaker,
            folder,
            tell=self.tell,
            every=self._every,
            render=self._render,
            worker=self.name,
            model=self.model,
            journal=Journal.open(folder),
        )
        tokens = session.conversation.tokens
        for item in self.store.shelf.items.values():
            if item.session == name and item.state == state_id(self.root, tokens[: item.tokens]):
                self._parked[name] = item.state
        return session

    def _speaker(self, session: Session) -> ContextSpeaker:
        assert isinstance(session.speaker, ContextSpeaker)
        return session.speaker

    def _free_sequence(self) -> int:
        taken = {self._speaker(session).seq for session in self.sessions.values()}
        for seq in range(self.context.sequences):
            if seq not in taken:
                return seq
        oldest = self._oldest()
        if oldest is None:
            raise NoRoomLeft(
                f"all {self.context.sequences} sequences of worker {self.name} are at work: try again, or start it with "
                "more (--parallel)"
            )
        freed = self._speaker(self.sessions[oldest]).seq
        assert freed is not None
        self.park(oldest)
        return freed

    def _oldest(self, apart_from: int | None = None) -> str | None:
        """Return which session may lose its sequence: the one that was used longest ago and is not at work."""
        idle = [
            name
            for name, session in self.sessions.items()
            if self._speaker(session).seq not in {None, apart_from} and name not in self.busy
        ]
        return min(idle, key=lambda name: (self._used.get(name, 0), name), default=None)

    def _relieve(self, seq: int) -> bool:
        """Make room in a cache that sequences share, for one of them: another session is put aside."""
        oldest = self._oldest(apart_from=seq) if self.context.params.kv_unified else None
        if oldest is not None:
            self.park(oldest)
        return oldest is not None

    def _vacate(self, speaker: ContextSpeaker) -> None:
        if speaker.seq is not None:
            self.context.drop(speaker.seq)
            speaker.seq = None

    def _leave(self, session: Session, reason: str) -> None:
        speaker = self._speaker(session)
        if speaker.seq is None:
            return
        state = state_id(self.root, session.conversation.tokens[: speaker.count])
        self._vacate(speaker)
        self.tell(KvReleased(state=state, worker=self.name, tier="device", reason=reason, session=session.name))

    def _bring_back(self, session: Session, state: str) -> None:
        """Restore a parked session's state, or leave it to be computed, as the costs say."""
        stored, tokens = self.store.get(state), session.conversation.tokens
        if stored is None:
            return
        item, ref = stored
        decision = self.states.decide(item.tokens, item.size, item.tier, state=state, session=session.name)
        if decision.choice == "restore":
            try:
                with self.store.opened(ref, item.tier) as opened:
                    self.states.load(session, opened, item.tier, ref.transport, state)
            except LOST as error:
                self.states.reject(state, error, session=session.name)
        if not item.pinned and state not in self._parked.values():
            self.store.drop(state, "replaced")
        else:
            self.store.touch(state)
        here = self._speaker(session).count
        self.tell(
            SessionLoaded(
                session=session.name,
                revision=session.conversation.revision,
                turns=session.conversation.turns,
                tokens=len(tokens),
                restored=here,
                recomputed=len(tokens) - here,
                worker=self.name,
                pending=session.pending,
            )
        )
