"""One publisher of another engine, as a fold: its messages go in, events for the log come out.

Pure: the shell receives, asks for replays and writes. Whatever a message holds, something comes out of it: events, a gap
where it could not be read, a count.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from morphogen.schemas import Event
from morphogen.schemas.kv import KvBlocksCleared, KvBlocksRemoved, KvBlocksStored, KvGap

from . import dynamo, vllm
from .errors import BadPayload
from .lineage import Lineage
from .sequence import digest
from .wire import line_of

_RESTARTED = {"reason": "restarted"}
_WORKERS = 1 << 16  # of one publisher; the one that was longest silent is forgotten first
_LATE = 1024  # numbers that a message of Dynamo may be behind the newest one; further behind, the worker began anew
_LEAP = 2**40  # numbers that a worker of Dynamo cannot have used up unheard


class Counts(msgspec.Struct):
    """What came of a publisher's messages so far."""

    messages: int = 0
    events: int = 0
    passed_over: int = 0  # events of other groups of caches, or of kinds not known
    doubles: int = 0
    bad: int = 0  # messages that could not be read
    last_bad: str | None = None
    gaps: int = 0
    lost: int = 0  # numbers that are missing for good
    replayed: int = 0  # messages that a replay brought
    restarts: int = 0


class Feed(Protocol):
    """What the shell asks of a dialect."""

    counts: Counts

    @property
    def last(self) -> int:
        """The number of the last message that the log has, -1 where it has none."""

    @property
    def digest(self) -> bytes | None:
        """What that message is known by, where the log has it."""

    def take(self, event: Event) -> None:
        """Fold an event of the log's past."""

    def message(self, number: int, payload: bytes) -> list[Event]:
        """Return what one message says."""

    def missing(self, first: int, last: int, reason: str, received: int | None) -> list[Event]:
        """Return what is to be said of messages that are lost."""

    def restarted(self) -> list[Event]:
        """Return what is to be said where the publisher began anew."""


class VllmFeed:
    """A publisher of vLLM's dialect: one rank of one engine."""

    def __init__(self, engine: str, worker: str, model: str | None = None) -> None:
        self.counts = Counts()
        self._engine, self._worker, self._model = engine, worker, model
        self._lineages: dict[str, Lineage] = {}
        self._groups = vllm.Groups()
        self._last, self._digest = -1, b""

    @property
    def last(self) -> int:
        """The number of the last message that the log has, -1 where it has none."""
        return self._last

    @property
    def digest(self) -> bytes | None:
        """What that message is known by, where the log has it."""
        return self._digest or None

    def take(self, event: Event) -> None:
        """Fold an event of the log's past."""
        if isinstance(event, KvGap):
            if self._mine(event) and event.last > self._last:
                self._last, self._digest = event.last, b""
        elif isinstance(event, KvBlocksStored | KvBlocksRemoved | KvBlocksCleared) and self._mine(event):
            self._lineage(event.worker).take(event)
            if event.event_id is not None:
                self._last, self._digest = event.event_id, _known_by(event)
            elif event.details == _RESTARTED:
                self._last, self._digest = -1, b""

    def message(self, number: int, payload: bytes) -> list[Event]:
        """Return what one message says: up to where it cannot be understood, and from there on a gap of one number."""
        self.counts.messages += 1
        told: list[Event] = []
        self._last, self._digest = number, b""
        try:
            told += self._told(number, payload)
        except Exception as error:  # noqa: BLE001  (whatever a message does to its reader, it is the message that is bad)
            self.counts.events += len(told)
            _count_bad(self.counts, error)
            reason = f"not understood: {self.counts.last_bad}"
            return told + [self._gap(worker, number, number, reason, number) for worker in self._workers()]
        self.counts.events += len(told)
        self._digest = digest(payload)
        if told:
            told[-1] = _with_digest(told[-1], self._digest)
        return told

    def _told(self, number: int, payload: bytes) -> Iterator[Event]:
        batch = vllm.read_batch(
            payload, engine=self._engine, worker=self._worker, model=self._model, number=number, groups=self._groups
        )
        self.counts.passed_over += batch.passed_over
        for at, event in enumerate(batch.events):
            if isinstance(event, KvBlocksStored):
                yield from self._lineage(event.worker).stored(event, extra=batch.extras.get(at, ()))
            elif isinstance(event, KvBlocksRemoved):
                yield from self._lineage(event.worker).removed(event)
            elif isinstance(event, KvBlocksCleared):
                self._lineage(event.worker).clear()
                yield event

    def missing(self, first: int, last: int, reason: str, received: int | None) -> list[Event]:
        """Return what is to be said of messages that are lost."""
        self.counts.gaps += 1
        self.counts.lost += last - first + 1
        return [self._gap(worker, first, last, reason, received) for worker in self._workers()]

    def restarted(self) -> list[Event]:
        """Return that every rank heard of here holds nothing any more."""
        self.counts.restarts += 1
        self._last, self._digest = -1, b""
        for lineage in self._lineages.values():
            lineage.clear()
        return [
            KvBlocksCleared(engine=self._engine, dialect=vllm.DIALECT, worker=worker, details=_RESTARTED)
            for worker in self._workers()
        ]

    def _gap(self, worker: str, first: int, last: int, reason: str, received: int | None) -> KvGap:
        return KvGap(
            engine=self._engine, dialect=vllm.DIALECT, worker=worker, first=first, last=last, reason=reason,
            received=received,
        )  # fmt: skip

    def _mine(self, event: KvBlocksStored | KvBlocksRemoved | KvBlocksCleared | KvGap) -> bool:
        here = event.worker == self._worker or rank_of(event.worker, self._worker)
        return here and (event.engine, event.dialect) == (self._engine, vllm.DIALECT)

    def _workers(self) -> list[str]:
        return list(self._lineages) or [self._worker]

    def _lineage(self, worker: str) -> Lineage:
        return _of(self._lineages, worker)


class DynamoFeed:
    """A publisher of Dynamo's dialect: events of any number of workers, each with a count of its own."""

    def __init__(self, engine: str, block_size: int | None = None, model: str | None = None) -> None:
        self.counts = Counts()
        self._engine, self._block_size, self._model = engine, block_size, model
        self._lineages: dict[str, Lineage] = {}
        self._numbers: dict[str, int] = {}

    @property
    def last(self) -> int:
        """Nothing: Dynamo's publishers keep no past to be asked for, and its workers count for themselves."""
        return -1

    @property
    def digest(self) -> bytes | None:
        """Nothing, for the same reason."""
        return None

    def take(self, event: Event) -> None:
        """Fold an event of the log's past."""
        kinds = KvBlocksStored | KvBlocksRemoved | KvBlocksCleared | KvGap
        if not isinstance(event, kinds) or (event.engine, event.dialect) != (self._engine, dynamo.DIALECT):
            return
        if isinstance(event, KvGap):
            self._numbers[event.worker] = max(self._numbers.get(event.worker, -1), event.last)
            return
        _of(self._lineages, event.worker).take(event)
        if event.event_id is not None:
            self._numbers[event.worker] = event.event_id
        elif event.details == _RESTARTED:
            self._numbers.pop(event.worker, None)

    def message(self, number: int, payload: bytes) -> list[Event]:
        """Return what one message says.

        What cannot be read is only counted: whose it was and which number it had is in what cannot be read. The next
        message of that worker shows the gap.
        """
        self.counts.messages += 1
        events: list[Event] = []
        try:
            for one in dynamo.read_message(
                payload, engine=self._engine, block_size=self._block_size, model=self._model
            ):
                events += self._one(one)
        except Exception as error:  # noqa: BLE001  (whatever a message does to its reader, it is the message that is bad)
            _count_bad(self.counts, error)
        self.counts.events += len(events)
        return events

    def missing(self, first: int, last: int, reason: str, received: int | None) -> list[Event]:
        """Return nothing: what is missing shows in the numbers of the workers."""
        return []

    def restarted(self) -> list[Event]:
        """Return nothing: a worker that begins anew is another worker."""
        return []

    def _one(self, told: dynamo.Told) -> list[Event]:
        event = told.event
        assert isinstance(event, KvBlocksStored | KvBlocksRemoved | KvBlocksCleared)
        worker = event.worker
        before = self._numbers.get(worker)
        if told.number - (before or 0) > _LEAP:
            raise BadPayload(f"event_id {told.number} after {before or 0}: no worker counts so far unheard")
        events: list[Event] = []
        if before is not None and told.number <= before:
            if not _anew(told.number, before):
                self.counts.doubles += 1
                return []
            events.append(self._restarted(worker))
            before = None
        first = 1 if before is None else before + 1  # the first event of a worker is 0 or 1
        if told.number > first:
            self.counts.gaps += 1
            self.counts.lost += told.number - first
            events.append(self._gap(
                worker, first, told.number - 1, "heard of only now" if before is None else "lost on the way", told.number))  # fmt: skip
        self._numbers.pop(worker, None)  # so that the dictionary's order is that of the last sign of life
        self._numbers[worker] = told.number
        if len(self._numbers) > _WORKERS:
            silent = next(iter(self._numbers))
            del self._numbers[silent]
            self._lineages.pop(silent, None)
        lineage = _of(self._lineages, worker)
        if isinstance(event, KvBlocksStored):
            hashes: Sequence[int] = () if event.details.get("images") else told.token_hashes
            try:
                events += lineage.stored(event, token_hashes=hashes if self._block_size else ())
            except BadPayload as error:
                _count_bad(self.counts, error)
                events.append(self._gap(worker, told.number, told.number, f"not understood: {error}", told.number))
        elif isinstance(event, KvBlocksRemoved):
            events += lineage.removed(event)
        else:
            lineage.clear()
            events.append(event)
        return events

    def _restarted(self, worker: str) -> KvBlocksCleared:
        self.counts.restarts += 1
        self._lineages.pop(worker, None)
        return KvBlocksCleared(engine=self._engine, dialect=dynamo.DIALECT, worker=worker, details=_RESTARTED)

    def _gap(self, worker: str, first: int, last: int, reason: str, received: int) -> KvGap:
        return KvGap(
            engine=self._engine, dialect=dynamo.DIALECT, worker=worker, first=first, last=last, reason=reason,
            received=received,
        )  # fmt: skip


def rank_of(name: str, worker: str) -> bool:
    """Tell whether a name is that of a rank of data parallelism of a worker: `<worker>/dp<rank>`."""
    return name.startswith(worker) and re.fullmatch(r"/dp[0-9]+", name[len(worker) :]) is not None


def fold(feed: Feed, past: Iterable[Event]) -> None:
    """Bring a feed to where the log's past left it."""
    for event in past:
        feed.take(event)


def _anew(number: int, before: int) -> bool:
    """Tell whether a number that is not above the one before it is of another life of the worker, not of a late message."""
    return number < before and (number <= 1 or before - number > _LATE)


def _count_bad(counts: Counts, error: Exception) -> None:
    counts.bad += 1
    counts.last_bad = str(error) if isinstance(error, BadPayload) else f"{type(error).__name__}: {line_of(error)}"


def _with_digest(event: Event, known_by: bytes) -> Event:
    """Return the last event of a message with what the message is known by."""
    if isinstance(event, KvBlocksStored | KvBlocksRemoved | KvBlocksCleared):
        return msgspec.structs.replace(event, details={**event.details, "digest": known_by.hex()})
    return event


def _known_by(event: KvBlocksStored | KvBlocksRemoved | KvBlocksCleared) -> bytes:
    told = event.details.get("digest")
    try:
        return bytes.fromhex(told) if isinstance(told, str) else b""
    except ValueError:
        return b""


def _of(lineages: dict[str, Lineage], worker: str) -> Lineage:
    found = lineages.get(worker)
    if found is None:
        found = lineages[worker] = Lineage()
    return found
