"""A session goes from one worker to another: offered, accepted, imported or rejected, and only then given up.

The two talk by request and reply; nothing in the path waits for a timer, or for the log. The one that offers keeps the
session until it hears that the other one has it; whichever of the two dies, the bytes between them are leased and go.
"""

import contextlib
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from morphogen.bus.errors import BusError, NoResponders, ServiceError
from morphogen.bus.requests import call, call_stream
from morphogen.kernels.kv.transport import Leased, Meta, Place, Transport, choose
from morphogen.schemas.kv import (
    HandoffArgs,
    KvImported,
    KvOffered,
    KvRef,
    block_hashes,
    differences,
    pack_hashes,
    worker_subject,
)

from .client import has
from .conversation import Copied, Moved, state_id
from .errors import ContinuityError, HandoffFailed, HandoffUnsure
from .house import House
from .journal import pack as record
from .offers import Offers
from .store import LOST, TIER_OF
from .turns import Lane
from .wire import INFO, OFFER, Answer, Info, Offer, pack, unpack

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

_SILENCE = 3.0  # seconds without a sign of life after which the other worker counts as dead
_IN_MESSAGE = 256 * 1024  # bytes of a journal that travel with the offer itself
_ASK = 2.0  # seconds for a worker to say who it is


@dataclass(frozen=True)
class Given:
    """What became of a session that was handed over."""

    session: str
    to: str
    transport: str
    tokens: int
    size: int
    restored: int
    recomputed: int
    first_token_ns: int | None
    transfer_ns: int | None


async def give(
    conn: "Connection",
    house: House,
    lane: Lane,
    place: Place,
    args: HandoffArgs,
    handoff: str,
    cause: str | None,
    known: dict[str, Info],
    offers: Offers,
) -> Given:
    """Hand a session over to the worker `args.to`; it must not be computing meanwhile.

    The session is given up here once the other one has it, unless `args.keep`. Raises HandoffFailed, and the session
    stays, where the other worker refuses, dies or is not there; HandoffUnsure where it fell silent just as it took the
    session up. `known` is what was learned of other workers; one that is started anew as something else refuses the offer,
    and is asked again the next time.
    """
    target = known.pop(args.to, None) or await _ask(conn, args.to)
    if target.fingerprint.digest != house.root:
        field, expected, actual = differences(house.fingerprint, target.fingerprint)[0]
        reason = f"it runs another model or other settings: {field} is {actual}, here {expected}"
        await lane(lambda: _refused(house, args, handoff, reason, cause))
        raise HandoffFailed(f"worker {args.to} cannot take session {args.session!r}: {reason}")
    chosen = args.transport or choose(place, target.place)
    if chosen == "same_process":  # two contexts share no cells
        chosen = "shared_memory"
    tier = TIER_OF.get(chosen or "", "")
    transport = house.store.transports.get(tier)
    if transport is None:
        raise HandoffFailed(
            f"no transport leads from worker {house.name} to {args.to}"
            + (f" by {args.transport}" if args.transport else ": they share no host, and no broker with blobs")
        )
    sent = await lane(lambda: _Sent(house, args, handoff, transport, tier, cause))
    offers.make(sent.attempt)
    try:
        given = await _deliver(conn, house, lane, args, sent, offers)
        known[args.to] = target
        return given
    finally:
        offers.over(sent.attempt)
        await lane(sent.release)


async def _ask(conn: "Connection", worker: str) -> Info:
    try:
        return unpack(await call(conn, worker_subject(worker, INFO), timeout=_ASK), Info)
    except NoResponders as error:
        raise HandoffFailed(
            f"there is no worker {worker!r} at this broker: start it, or see `morphogen kv list`"
        ) from error
    except BusError as error:
        raise HandoffFailed(f"worker {worker} does not answer: {error}") from error


def _refused(house: House, args: HandoffArgs, handoff: str, reason: str, cause: str | None) -> None:
    session = house.session(args.session, create=False)
    state = state_id(house.root, session.conversation.tokens)
    house.states.reject(state, reason, source=args.to, handoff=handoff, session=args.session, cause=cause)


class _Sent:
    """What was written for the other worker, and is given back whatever comes. Made and released by the computing thread."""

    def __init__(
        self, house: House, args: HandoffArgs, handoff: str, transport: Transport, tier: str, cause: str | None
    ) -> None:
        self._house, self._transport, self._refs, self._given = house, transport, list[KvRef](), list[KvRef]()
        self.args, self.handoff, self.cause = args, handoff, cause
        self.attempt = uuid.uuid4().hex
        try:
            exported = house.export(args.session, transport, tier=tier)
            if exported is not None:
                self._refs.append(exported.ref)
                house.store.hold(
                    f"handoff {handoff}", exported.state, tier, size=exported.size, session=exported.session
                )
                cause = house.tell(exported, cause=cause)
            session = house.session(args.session, create=False)
            if not args.keep:  # in the journal that travels, too: by it the other one knows this session again
                session.journal.append(Moved(to=args.to, name=args.rename or args.session, handoff=self.attempt))
            journal = session.journal.whole() + (record(Copied()) if args.keep else b"")
            journal_ref = None
            if len(journal) > _IN_MESSAGE:
                with transport.reserve(len(journal)) as room:
                    room.buffer[: len(journal)] = journal
                    journal_ref = room.commit(Meta(size=len(journal)))
                self._refs.append(journal_ref)
            for written in self._refs:
                self._given.append(self._offered(written))
        except (*LOST, ContinuityError) as error:
            self.release()  # its lease would be renewed as long as this process lives
            self.stays()
            raise HandoffFailed(f"session {args.session!r} cannot be exported to {tier}: {error}") from error
        self.state = exported.state if exported else state_id(house.root, session.conversation.tokens)
        self.tokens = exported.tokens if exported else 0
        self.size = exported.size if exported else 0
        self.transport = transport.name
        ref = self._given[0] if exported else None
        told = None
        if ref is not None:
            event = KvOffered(
                state=self.state,
                worker=house.name,
                to=args.to,
                tokens=self.tokens,
                size=self.size,
                transport=transport.name,
                ref=ref,
                root=house.root,
                handoff=handoff,
                session=args.session,
                expires=time.time_ns() + int(args.ttl * 1e9),
            )
            told = house.tell(event, cause=cause)
        self.offer = Offer(
            handoff=handoff,
            attempt=self.attempt,
            source=house.name,
            session=args.rename or args.session,
            state=self.state,
            ref=ref,
            tokens=self.tokens,
            root=house.root,
            journal=None if journal_ref else journal,
            journal_ref=self._given[-1] if journal_ref else None,
            cause=told,
        )

    def _offered(self, ref: KvRef) -> KvRef:
        """Return a ref that the other one may open even if this process dies now."""
        if isinstance(self._transport, Leased):
            return self._transport.offer(ref, ttl=self.args.ttl)
        return ref

    def stays(self) -> None:
        """Take note that the session was not taken, and never will be by this offer."""
        if not self.args.keep:
            self._house.stays(self.args.session, self.attempt)

    def release(self) -> None:
        """Give back what was written, once."""
        refs, self._refs = self._refs, []
        given = [ref for ref in self._given if ref not in refs]
        for ref in (*given, *refs):
            with contextlib.suppress(*LOST):
                self._transport.release(ref)
        self._house.store.let_go(f"handoff {self.handoff}", "handed_off", cause=self.cause)


async def _deliver(
    conn: "Connection", house: House, lane: Lane, args: HandoffArgs, sent: _Sent, offers: Offers
) -> Given:
    """Offer, hear what becomes of it, and give the session up where the other one has it."""
    heard = await _heard(conn, args, sent)
    answer = heard if isinstance(heard, Answer) else None
    settled = not offers.call_off(sent.attempt)  # by our word, without which nobody has the session
    if answer is not None and answer.what == "imported" and not settled and not args.keep:
        answer, heard = None, f"worker {args.to} took it up by an earlier try of this handoff, after which it came back"
    if answer is None and settled and not args.keep:
        here = await has(conn, args.to, sent.offer.session, sent.attempt)
        if here is None:
            raise HandoffUnsure(
                f"session {args.session!r} may be at worker {args.to}, which took it up and fell silent: it is told when "
                f"that one answers again ({heard})"
            )
        answer = Answer(what="imported") if here else None
    if answer is None:
        await lane(lambda: house.states.reject(
            sent.state, str(heard), source=args.to, handoff=sent.handoff, session=args.session, cause=sent.offer.cause
        ))  # fmt: skip
        await lane(sent.stays)
        raise HandoffFailed(f"session {args.session!r} stays at {house.name}: {heard}")
    if answer.what == "rejected":
        await lane(sent.stays)
        failed = ContinuityError if answer.final else HandoffFailed
        raise failed(f"session {args.session!r} stays at {house.name}: worker {args.to} rejected it: {answer.reason}")
    if not args.keep:
        await lane(lambda: house.forget(args.session, "handed_off"))
    return Given(
        session=sent.offer.session,
        to=args.to,
        transport=sent.transport,
        tokens=sent.tokens,
        size=sent.size,
        restored=answer.restored,
        recomputed=answer.recomputed,
        first_token_ns=answer.first_token_ns,
        transfer_ns=answer.duration_ns,
    )


async def _heard(conn: "Connection", args: HandoffArgs, sent: _Sent) -> Answer | str:
    """Return the last word of the other worker, or why there was none."""
    answer: Answer | None = None
    stream = call_stream(
        conn,
        worker_subject(args.to, OFFER),
        pack(sent.offer),
        timeout=args.ttl,
        idle_timeout=min(_SILENCE, args.ttl),
    )
    try:
        async with contextlib.aclosing(stream) as answers:
            async for data in answers:
                answer = unpack(data, Answer)
    except NoResponders as error:
        return str(error)
    except ServiceError as error:
        return f"worker {args.to} failed: {error}"
    except (BusError, ContinuityError) as error:
        return f"expired: worker {args.to} gave no answer to the offer ({error})"
    if answer is None or answer.what == "accepted":
        return f"worker {args.to} broke the offer off"
    return answer


async def fork(house: House, lane: Lane, args: HandoffArgs, handoff: str, cause: str | None) -> Given:
    """Hand a session to the worker itself, under another name: a copy, by which no byte of KV is moved."""
    if not args.rename or args.rename == args.session:
        raise ContinuityError(f"session {args.session!r} is at {house.name} already: name its copy (rename)")
    name = args.rename

    def work() -> Given:
        began = time.monotonic_ns()
        made = house.fork(args.session, name)
        count, tokens = made.speaker.count, made.conversation.tokens
        state = state_id(house.root, tokens[:count])
        event = KvImported(
            state=state,
            worker=house.name,
            tokens=count,
            size=0,
            tier="device",
            transport="same_process",
            root=house.root,
            source=house.name,
            handoff=handoff,
            session=name,
            model=house.model,
            blocks=pack_hashes(block_hashes(tokens[:count], house.root)),
            duration_ns=time.monotonic_ns() - began,
        )
        house.states.seat(name, state)
        house.tell(event, cause=cause)
        if not args.keep:
            house.forget(args.session, "handed_off")
        return Given(name, house.name, "same_process", count, 0, count, len(tokens) - count, None, event.duration_ns)

    return await lane(work)  # type: ignore[no-any-return]
