"""The other end of a handoff: an offer is looked at, taken up, and the session goes on here, or is left where it was."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from morphogen.kernels.kv import KvRefused, KvState
from morphogen.kernels.kv.transport import Disk, Transport, TransportError
from morphogen.schemas import token
from morphogen.schemas.kv import (
    KvAccepted,
    KvImported,
    block_hashes,
    pack_hashes,
)

from .errors import ContinuityError, HandoffFailed, SessionError
from .house import House
from .journal import unpack as read_journal
from .store import LOST, TIER_OF
from .turns import Lane
from .wire import Answer, Offer, pack, unpack

_REMEMBERED = 1000  # answers to offers


class Taking:
    """The other end: takes offers up. `began` is told of each session that has arrived in the middle of a reply.

    `stands` asks a worker whether its offer of an attempt stands, in the computing thread: who asks whether the session came
    is answered after that, by the same thread.
    """

    def __init__(
        self, house: House, lane: Lane, began: Callable[[str], None], stands: Callable[[str, str], bool]
    ) -> None:
        self._house, self._lane, self._began, self._stands = house, lane, began, stands
        self._done: dict[str, Answer] = {}
        self._arriving: set[asyncio.Task[Answer]] = set()

    def close(self) -> None:
        """Begin no reply any more of what arrives now."""
        for task in self._arriving:
            task.cancel()

    async def answer(self, payload: bytes) -> AsyncIterator[bytes]:
        """Answer an offer: accepted, and then imported or rejected."""
        received = time.monotonic_ns()  # of two hosts each has a clock of its own
        offer = unpack(payload, Offer)
        before = self._done.get(offer.handoff)
        if before is not None:  # asked again: the first answer was lost
            yield pack(before)
            return
        reason = self._objection(offer)
        if reason is not None:
            yield pack(await self._lane(lambda: self._reject(offer, reason, final=True)))
            return
        self._house.tell(
            KvAccepted(
                state=offer.state,
                worker=self._house.name,
                source=offer.source,
                transport=offer.ref.transport if offer.ref else "blobs",
                handoff=offer.handoff,
                session=offer.session,
            ),
            cause=offer.cause,
        )
        yield pack(Answer(what="accepted"))
        arriving = asyncio.create_task(self._arrive(offer, received), name=f"morphogen offer {offer.session}")
        self._arriving.add(arriving)
        arriving.add_done_callback(self._arriving.discard)
        yield pack(await asyncio.shield(arriving))  # it arrives whether or not the giver still listens

    async def _arrive(self, offer: Offer, received: int) -> Answer:
        """Take a session, and have its reply go on if one is pending."""
        answer, pending = await self._lane(lambda: self._take(offer, received))
        if answer.what == "imported" or answer.final:  # what was refused for now is tried again
            self._done[offer.handoff] = answer
        if len(self._done) > _REMEMBERED:
            del self._done[next(iter(self._done))]
        if pending:
            self._began(offer.session)
        return answer  # type: ignore[no-any-return]

    def _objection(self, offer: Offer) -> str | None:
        """Return why an offer is not even tried."""
        house = self._house
        if offer.root != house.root:
            return "its fingerprint is not that of the model here"
        if offer.ref is not None:
            way = TIER_OF.get(offer.ref.transport)
            if way not in house.store.transports or (way == "disk" and not self._folder_of(offer.source).is_dir()):
                return f"transport {offer.ref.transport} does not lead here"
        if house.known(offer.session):
            return f"there is a session {offer.session!r} here already: hand it over under another name"
        return None

    def _reject(self, offer: Offer, error: Exception | str, *, final: bool) -> Answer:
        event = self._house.states.reject(
            offer.state,
            error,
            source=offer.source,
            handoff=offer.handoff,
            session=offer.session,
            cause=offer.cause,
        )
        return Answer(
            what="rejected",
            reason=event.reason,
            final=final,
            field=event.field,
            expected=event.expected,
            actual=event.actual,
        )

    def _take(self, offer: Offer, received: int) -> tuple[Answer, bool]:
        """Restore the session, or leave its tokens to be computed, and make the first token where a reply is pending."""
        house, began = self._house, time.monotonic_ns()
        try:
            journal = self._journal(offer)
            conversation, whole = read_journal(journal, f"the journal of session {offer.session!r}")
            if whole != len(journal):
                raise SessionError(f"the journal of session {offer.session!r} was cut off: hand it over again")
            if len(conversation.tokens) > house.context.room:
                raise SessionError(
                    f"session {offer.session!r} has {len(conversation.tokens)} tokens, and worker {house.name} has room for "
                    f"{house.context.room}: start it with a larger context (--ctx)"
                )

            def settle() -> None:
                if not self._stands(offer.source, offer.attempt):
                    raise HandoffFailed(
                        f"worker {offer.source} has called the offer off, or is gone: hand it over again"
                    )

            if offer.ref is not None and self._worth_it(offer):
                tier = TIER_OF[offer.ref.transport]
                clock = time.perf_counter()
                with self._way(tier, offer.source) as way, house.store.opened(offer.ref, tier, way) as state:
                    _check(state, conversation.tokens, offer)
                    session = house.adopt(offer.session, journal, state, settle=settle)
                house.states.costs = house.states.costs.restored(tier, offer.ref.size, time.perf_counter() - clock)
                restored = offer.tokens
            else:
                session = house.adopt(offer.session, journal, None, settle=settle)
                restored = 0
        except (*LOST, ContinuityError) as error:
            final = isinstance(error, (KvRefused, SessionError, TransportError))
            return self._reject(offer, error, final=final), False
        transfer = time.monotonic_ns() - began
        pending, first = session.pending, None
        if pending and restored:
            before = len(session.conversation.tokens)
            try:
                while session.pending and len(session.conversation.tokens) == before:
                    session.step()
                first = time.monotonic_ns() - received
            except Exception:  # noqa: BLE001  the turn that follows meets it again, and tells its readers
                first = None
        self._tell(offer, restored, transfer, first)
        answer = Answer(
            what="imported",
            restored=restored,
            recomputed=max(0, len(session.conversation.tokens) - restored),
            duration_ns=transfer,
            first_token_ns=first,
        )
        return answer, pending

    def _journal(self, offer: Offer) -> bytes:
        if offer.journal is not None:
            return offer.journal
        if offer.journal_ref is None:
            raise SessionError(f"the offer of session {offer.session!r} brings no journal")
        tier = TIER_OF.get(offer.journal_ref.transport, "")
        with self._way(tier, offer.source) as way, way.open(offer.journal_ref) as mapped:
            data = bytes(mapped.buffer)
            mapped.check()
        return data

    @contextmanager
    def _way(self, tier: str, source: str) -> Iterator[Transport]:
        """Give the transport that opens what another worker wrote."""
        found = self._house.store.transports[tier]
        if not isinstance(found, Disk):
            yield found
            return
        theirs = Disk(self._folder_of(source))
        try:
            yield theirs
        finally:
            theirs.close()

    def _folder_of(self, worker: str) -> Path:
        """Return where another worker of this data folder keeps its files: each has a folder of its own."""
        disk = self._house.store.transports["disk"]
        assert isinstance(disk, Disk)
        own = disk.folder.path
        return own.parents[1] / token(worker) / own.name

    def _worth_it(self, offer: Offer) -> bool:
        assert offer.ref is not None
        tier = TIER_OF[offer.ref.transport]
        decision = self._house.states.decide(
            offer.tokens, offer.ref.size, tier, state=offer.state, session=offer.session, cause=offer.cause
        )
        return decision.choice == "restore"

    def _tell(self, offer: Offer, restored: int, transfer: int, first: int | None) -> None:
        house, ref = self._house, offer.ref
        session = house.session(offer.session)
        cause = offer.cause
        if restored and ref is not None:
            event = KvImported(
                state=offer.state,
                worker=house.name,
                tokens=restored,
                size=ref.size,
                tier=TIER_OF[ref.transport],
                transport=ref.transport,
                root=house.root,
                source=offer.source,
                handoff=offer.handoff,
                session=offer.session,
                model=house.model,
                blocks=pack_hashes(block_hashes(session.conversation.tokens[:restored], house.root)),
                duration_ns=transfer,
                first_token_ns=first,
            )
            house.states.seat(offer.session, offer.state)
            cause = house.tell(event, cause=cause)
        recomputed = max(0, len(session.conversation.tokens) - restored)
        house.tell(session.loaded(restored, recomputed, transfer), cause=cause)


def _check(state: KvState, tokens: list[int], offer: Offer) -> None:
    if state.count != offer.tokens or state.count > len(tokens):
        raise KvRefused(
            f"{state.where} holds {state.count} tokens, the offer says {offer.tokens} of {len(tokens)}: export it again"
        )
