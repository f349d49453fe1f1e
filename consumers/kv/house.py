"""What a worker holds: sessions, the sequences they sit on, and stored KV states in their tiers.

Everything here runs in the one thread that computes, so nothing needs a lock.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from morphogen.kernels.kv import IsolatedImporter, KvState, RawContext
from morphogen.schemas import token
from morphogen.schemas.kv import (
    Fingerprint,
    KvExported,
)

from .continuity import Session
from .conversation import Copied, Stayed, state_id
from .cost import Choice
from .desk import Desk
from .errors import ContinuityError, NoRoomLeft, SessionBusy, SessionError, SessionLost
from .gone import Gone
from .journal import NAME, Journal, pack
from .prompts import render_of
from .seating import Seating, speaker_of
from .speaker import ContextSpeaker
from .states import States
from .store import LOST, Store, Tell
from .wire import SessionInfo

_ARRIVING, _GONE = ".arriving-", ".gone"  # no token of a name begins with a dot

_log = logging.getLogger("morphogen.kv")


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
        self.seats = Seating(context, self.sessions, self.states, store, tell=tell, name=name, root=self.root)
        self.busy = self.seats.busy
        self._folder, self.tell, self._cache, self._every = folder, tell, cache, every
        self._importer = importer
        spare = ContextSpeaker(context, fingerprint=fingerprint)
        self._render = render_of(spare.template() if template else None)  # once: a template takes milliseconds to read
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self._folder.glob(f"{_ARRIVING}*"):
            shutil.rmtree(left, ignore_errors=True)
        self._found = os.stat(self._folder)
        self._waiting = {place.parent.name for place in self._folder.glob(f"*/{NAME}")}  # for somebody to ask for them
        self._desk = Desk()
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

        Raises SessionError where there is none and none is to be made, SessionLost where there was one.
        """
        found = self.sessions.get(name)
        if found is None:
            self._look_for(name)
            if not create and not self.known(name):
                raise SessionError(f"worker {self.name} has no session {name!r}: see `morphogen kv list`")
            found = self.sessions[name] = self._begun(name)
            self._waiting.discard(token(name))
        return found

    def seated(self, name: str, *, create: bool = True) -> Session:
        """Return a session that sits on a sequence; its KV state is restored, or left to be computed again.

        Raises NoRoomLeft where every sequence is at work.
        """
        session = self.session(name, create=create)
        self.seats.seat(session)
        return session

    @contextmanager
    def speaking(self, name: str) -> Iterator[Session]:
        """Seat a session for something to be said in it; where that is refused, one that began with it is not left.

        One that was put aside may stay so where there is no room for it: its reply waits for that (`resume`).
        """
        fresh = not self.known(name)
        try:
            try:
                session = self.seated(name)
            except NoRoomLeft:
                if self.seats.parked(name) is None:
                    raise
                session = self.session(name)
            yield session
        except ContinuityError:
            if fresh and name in self.sessions:
                self.forget(name, "dropped")
            raise

    def infos(self) -> list[SessionInfo]:
        """Return what is here, by name."""
        infos = []
        for name, session in sorted(self.sessions.items()):
            tier = "device" if speaker_of(session).seq is not None else None
            if (stored := self.store.get(self.seats.parked(name) or "")) is not None:
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
        """Give a session up, with its journal, readable or not, and whatever was stored of it and is not pinned."""
        with suppress(SessionLost):
            session = self.session(name, create=False)
            with suppress(OSError):  # a full disk is no reason to keep what another worker has
                self._gone.add(session.conversation.handoffs)
            self.seats.leave(session, reason)
            del self.sessions[name]
            session.close()
        self._waiting.discard(token(name))
        parked = self.seats.forget(name)
        for item in list(self.store.shelf.items.values()):
            alone = item.session == name or (item.state == parked and not self.known(item.session or ""))
            if alone and not item.pinned and not self.seats.needed(item.state):
                self.store.drop(item.state, reason)
        shutil.rmtree(self.place(name), ignore_errors=True)

    def stays(self, name: str, handoff: str) -> None:
        """Take note that a session did not go by a handoff, and never will."""
        with suppress(ContinuityError):  # a full disk: the other worker is asked after the next start
            self.session(name, create=False).journal.append(Stayed(handoff=handoff))

    def adopt(
        self, name: str, journal: bytes, state: KvState | None, *, settle: Callable[[], None] | None = None
    ) -> Session:
        """Take a session over: its journal, and its KV state where one comes along. All of it is here, or nothing.

        `settle` is called once nothing is missing but the session's name; where it raises, nothing is here. Raises what
        refused the state, SessionBusy where there is a session of that name.
        """
        if self.known(name):
            raise SessionBusy(f"worker {self.name} has a session {name!r} already: hand it over under another name")
        self._look_for(name)
        folder, arriving = self.place(name), self._folder / f"{_ARRIVING}{token(name)}"
        seq = self.seats.free()
        session: Session | None = None
        try:
            for left in (folder, arriving):  # by a kill, in the middle of forgetting it or of this
                shutil.rmtree(left, ignore_errors=True)
            arriving.mkdir(mode=0o700)
            (arriving / NAME).write_bytes(journal)
            session = self._open(name, arriving)
            speaker = speaker_of(session)
            speaker.seq = seq
            speaker.truncate(0)
            if state is not None:
                speaker.load(state, session.conversation.tokens[: state.count])
            if settle is not None:
                settle()
            session.settle_in(folder)  # only now there is a session of that name, whoever is killed
        except BaseException:
            if session is not None:
                session.close()
            self.context.drop(seq)
            shutil.rmtree(arriving, ignore_errors=True)
            raise
        self.sessions[name] = session
        self.seats.used(name)
        return session

    def fork(self, name: str, copy: str) -> Session:
        """Let a new session go on from where another one stands, within this context: no byte of KV is moved."""
        if self.known(copy):
            raise SessionBusy(f"worker {self.name} has a session {copy!r} already: choose another name")
        session = self._recalled(name)
        self.busy.add(name)
        try:
            made = self.adopt(copy, session.journal.whole() + pack(Copied()), None)
        finally:
            self.busy.discard(name)
        source, target = speaker_of(session).seq, speaker_of(made).seq
        assert source is not None
        assert target is not None
        if speaker_of(session).count:
            self.context.copy(source, target)
        return made

    # ------------------------------------------------------------------ states

    def export(self, name: str, into: Any, *, tier: str, pinned: bool = False) -> KvExported | None:
        """Write the KV state of a session into a transport or a file; None where nothing of it was computed.

        The caller tells the event, or keeps the state by `keep`.
        """
        return self.states.export(self._recalled(name), into, tier=tier, pinned=pinned)

    def keep(self, name: str, tier: str, *, pin: bool = False) -> KvExported:
        """Write the KV state of a session into a tier, where it stays as budgets allow; the event is told.

        Raises NoRoomLeft where the budget says no, ContinuityError where there is nothing to store.
        """
        exported = self.export(name, self.store.transport(tier), tier=tier, pinned=pin)
        if exported is None:
            raise ContinuityError(f"session {name!r} holds nothing yet: let it read or say something first")
        self.store.put(exported)
        return exported

    def close(self) -> None:
        """End: journals stay, with KV states beside them or on the disk; what only this process holds is given back."""
        for session in self.sessions.values():
            try:
                if speaker_of(session).seq is not None:
                    session.save_continuity()
            except (*LOST, ContinuityError) as error:  # no reason to lose the others
                _log.warning("the KV state of session %r is not kept: %s", session.name, error)
            session.close()
        self.store.close()

    # ------------------------------------------------------------------ inside

    def _look_for(self, name: str) -> None:
        """Raise where a session that is not open was taken away since this worker began, alone or with all others."""
        here: os.stat_result | None = None
        with suppress(OSError):
            here = os.stat(self._folder)
        if here is None or not os.path.samestat(here, self._found):
            raise SessionError(
                f"{self._folder} with the sessions of worker {self.name} was deleted or replaced while it runs: put it back, "
                "or start the worker again without them"
            )
        if token(name) in self._waiting and not self.known(name):
            raise SessionLost(
                f"session {name!r} was deleted from {self.place(name)} while worker {self.name} runs: put it back, or drop it"
            )

    def _begun(self, name: str) -> Session:
        """Open a session; where none is there and none can be begun, as on a full disk, nothing of it is left."""
        there = self.known(name)
        try:
            return self._open(name)
        except ContinuityError:
            if not there:
                shutil.rmtree(self.place(name), ignore_errors=True)
            raise

    def _open(self, name: str, folder: Path | None = None) -> Session:
        def timed(tokens: int, seconds: float) -> None:
            if tokens > 1:
                self.states.costs = self.states.costs.prefilled(tokens, seconds)

        speaker = ContextSpeaker(
            self.context,
            fingerprint=self.fingerprint,
            cache=self._cache,
            timed=timed,
            relieve=self.seats.relieve,
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
            journal=Journal.open(folder, desk=self._desk),
        )
        tokens = session.conversation.tokens
        for item in self.store.shelf.items.values():
            if item.session == name and item.state == state_id(self.root, tokens[: item.tokens]):
                self.seats.found(name, item.state)
        return session

    def _recalled(self, name: str) -> Session:
        """Seat a session, with what was saved of it in its sequence: an earlier process of this worker may have read it."""
        session = self.seated(name, create=False)
        session.recall()
        return session
