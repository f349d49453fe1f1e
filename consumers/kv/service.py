"""What a worker answers: messages, replies as streams, and what it holds.

Requests about one session are taken in turn; the replies of several sessions go on side by side, a token at a time.
"""

import asyncio
import contextlib
import os
import weakref
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from morphogen.kernels.kv.transport import Place

from .client import has
from .errors import Elsewhere, NoRoomLeft, SessionBusy, SessionError
from .house import House
from .offers import Offers
from .turns import Lane, Turn
from .wire import Ask, Bit, Had, Has, Info, Said, Say, pack, unpack

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection


_REMEMBERED = 10_000  # sessions that were given away


class Service:
    """The requests of one worker, and the replies that are under way. `lane` runs a call in the thread that computes."""

    def __init__(self, conn: "Connection", house: House, lane: Lane, place: Place, budgets: Mapping[str, int]) -> None:
        self.conn, self.house, self.lane, self.place = conn, house, lane, place
        self.turns: dict[str, Turn] = {}
        """The replies under way, by session; one that is over is in the journal of its session."""
        self.offers = Offers()
        self._given: dict[str, tuple[str, str]] = {}  # whither sessions went, and what they are called there
        self._asked: set[str] = set()  # sessions that stayed, though their journals do not say so
        self._budgets = dict(budgets)
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop all replies where they are; they can be carried on."""
        for task in list(self._tasks):
            task.cancel()
        for turn in list(self.turns.values()):
            await turn.stop()

    def lock(self, session: str) -> asyncio.Lock:
        """Return what keeps requests and commands about one session apart."""
        return self._locks.setdefault(session, asyncio.Lock())

    async def own(self, session: str) -> None:
        """See whether a session is here. Raises Elsewhere where it was given away, SessionError where that is not known.

        One that was being handed over when this worker died, or the other one fell silent, is asked for there.
        """
        house = self.house
        if not house.known(session):
            if session in self._given:
                raise Elsewhere(session, *self._given[session])
            return
        found = house.sessions.get(session) or await self.lane(lambda: house.session(session))
        moved = found.conversation.moved
        if moved is None or moved.to == house.name or session in self._asked:
            return
        there = await has(self.conn, moved.to, moved.name, moved.handoff)
        if there is None:
            raise SessionError(
                f"session {session!r} may be at worker {moved.to}, to which it was on its way, and which does not answer: "
                "start that one again"
            )
        if there:
            await self.lane(lambda: house.forget(session, "handed_off"))
            self.gave(session, moved.to, moved.name)
            raise Elsewhere(session, moved.to, moved.name)
        await self.lane(lambda: house.stays(session, moved.handoff))
        if found.conversation.moved is not None:
            self._asked.add(session)

    def gave(self, session: str, worker: str, name: str) -> None:
        """Take note whither a session went: nobody begins another one of its name unawares, and its readers follow."""
        self._asked.discard(session)
        self._given.pop(session, None)
        self._given[session] = (worker, name)
        if len(self._given) > _REMEMBERED:
            del self._given[next(iter(self._given))]

    def doubt(self, session: str, error: Exception) -> None:
        """Let nobody speak with a session before the worker that it was offered to says that it is not there."""
        self._asked.discard(session)
        turn = self.turns.pop(session, None)
        if turn is not None and not turn.over:
            turn.fail(error)

    def dropped(self, session: str) -> bool:
        """Forget all about a session of a name, and whither it went: another one may begin. Tell whether it went anywhere."""
        self._asked.discard(session)
        return self._given.pop(session, None) is not None

    async def info(self, payload: bytes) -> bytes:
        """Answer what this worker is and holds."""
        del payload
        house = self.house
        return pack(
            Info(
                worker=self.house.name,
                pid=os.getpid(),
                model=house.model,
                fingerprint=house.fingerprint,
                place=self.place,
                sequences=house.context.sequences,
                context=house.context.room,
                sessions=house.infos(),
                used={tier: house.store.shelf.used(tier) for tier in house.store.transports},
                budgets=self._budgets,
                costs=_costs_of(self.house),
            )
        )

    async def say(self, payload: bytes) -> bytes:
        """Append a message to a session, and have the model read it where that is asked."""
        say = unpack(payload, Say)

        def work() -> Said:
            with self.house.speaking(say.session) as session:
                session.say(say.text, say.role)
                if say.compute and self.house.seats.resume(session):
                    with contextlib.suppress(NoRoomLeft):  # it is read when there is room
                        session.read()
            return Said(session=say.session, tokens=len(session.conversation.tokens), turns=session.conversation.turns)

        async with self.lock(say.session):
            await self.own(say.session)
            return pack(await self.lane(work))

    async def generate(self, payload: bytes) -> AsyncIterator[bytes]:
        """Begin a reply, or carry one on; yield what it says from where the asker is."""
        ask = unpack(payload, Ask)
        async with self.lock(ask.session):
            try:
                await self.own(ask.session)
            except Elsewhere as error:
                if not ask.resume:
                    raise
                yield pack(Bit(at=ask.since, moved=error.worker, session=error.name))
                return
            turn = self.turns.get(ask.session)
            if turn is not None and not ask.resume:
                raise SessionBusy(f"session {ask.session!r} is in the middle of a reply: follow it (resume)")
            if turn is None and ask.resume:
                turn = await self._last(ask.session)
            if turn is None:
                turn = await self._begin(ask)
        async for bit in turn.follow(ask.since):
            yield pack(bit)

    async def has(self, payload: bytes) -> bytes:
        """Answer whoever gave a session away and died: whether it came here, even if it is not here any more."""
        asked = unpack(payload, Has)
        return pack(Had(here=await self.lane(lambda: self.house.had(asked.session, asked.handoff))))

    async def _last(self, name: str) -> Turn | None:
        """Return the newest reply of a session as its journal has it; None where one is pending."""

        def work() -> Turn | None:
            session = self.house.session(name, create=False)
            text = next((one.text for one in reversed(session.messages) if one.role == "assistant"), None)
            if session.pending or text is None:
                return None
            turn = Turn(self.house, session, self.lane, text=text)
            turn.finish, turn.tokens = session.finish or "stop", len(session.conversation.tokens)
            return turn

        return await self.lane(work) or self.turns.get(name)  # it may have arrived just now, and go on already

    async def _begin(self, ask: Ask) -> Turn:
        """Begin a reply, or carry on one that was broken off."""
        if ask.max_tokens < 1:  # before anything is said
            raise SessionError(
                f"session {ask.session!r}: a reply of at most {ask.max_tokens} tokens is none: ask for at least 1"
            )

        def work() -> tuple[Any, str]:
            house = self.house
            if ask.resume or ask.say is None:
                house.session(ask.session, create=False)
            with house.speaking(ask.session) as session:
                if ask.resume:
                    if not session.pending:
                        raise SessionError(f"session {ask.session!r} has no reply to carry on")
                    partial = session.partial
                    session.carry_on()
                    return session, partial
                if ask.say is not None:
                    session.say(ask.say, ask.role)
                session.begin(ask.max_tokens, ask.sampling, ask.stop)
                return session, ""

        session, partial = await self.lane(work)
        return self.follow(ask.session, Turn(self.house, session, self.lane, text=partial))

    def follow(self, name: str, turn: Turn) -> Turn:
        """Let a turn run on."""
        self.turns[name] = turn
        self.house.busy.add(name)

        async def run() -> None:
            await turn.run()
            if self.turns.get(name) is turn and turn.over:
                del self.turns[name]
                self.house.busy.discard(name)

        task = asyncio.create_task(run(), name=f"morphogen turn {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return turn

    def arrived(self, name: str) -> None:
        """Go on with a session that came from another worker in the middle of a reply."""
        session = self.house.session(name)
        if session.pending:
            text = session.partial
            session.carry_on()
            self.follow(name, Turn(self.house, session, self.lane, text=text))


def _costs_of(house: House) -> dict[str, Any]:
    """Return what was measured: tokens a second of prefill, and for each tier its overhead in seconds and bytes a second."""
    costs = house.states.costs
    found: dict[str, Any] = {"prefill_tokens_per_second": 1 / costs.prefill.fit[1]}
    for tier, line in costs.tiers.items():
        if line.measured:
            overhead, slope = line.fit
            found[tier] = {"overhead_seconds": overhead, "bytes_per_second": 1 / slope}
    return found
