"""Messages of the log as columns: what a fold is given.

A batch is a run of consecutive messages, decoded. It offers places and envelopes as arrays over all of its events,
and for each event type a `Selection` with the same arrays cut down to that type, and the decoded bodies. Everything
is made on first use and kept, so that ten projections over one batch decode it once.
"""

import datetime
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from morphogen.schemas import Frame, Record

from .arrays import Gaps, Words, strings
from .envelopes import Bodies, Envelopes, joined
from .opening import UNREADABLE, Lane, Message, Part, Unreadable, opened
from .selection import Selection, select

if TYPE_CHECKING:
    import numpy.typing as npt

_T = TypeVar("_T")
_TIME_MAX = 2**63 - 2  # of TIMESTAMP_NS, whose last value means infinity

__all__ = ["UNREADABLE", "Batch", "Bodies", "Entry", "Lane", "Message", "Part", "Unreadable"]


class Entry(NamedTuple):
    """One event with its place and envelope, for folds that go event by event; `time` is in unix nanoseconds.

    `body` is the event as its newest class, or plain values where the type is not registered.
    """

    seq: int
    idx: int
    id: str
    type: str
    version: int
    run: str
    attempt: int
    rank: int
    step: int | None
    time: int
    cause: str | None
    body: Any

    @property
    def when(self) -> datetime.datetime:
        """The event's time as a UTC datetime, to the microsecond."""
        return datetime.datetime.fromtimestamp(self.time // 1000 / 1e6, datetime.UTC)


class Batch:
    """Consecutive messages of the log, `first`..`last`, decoded.

    Build it with `Batch.read`. Arrays have one element an event, in the order of the log.
    """

    def __init__(
        self, parts: Sequence[Part], unreadable: Sequence[Unreadable], first: int, last: int,
        envelopes: Envelopes | None = None,
    ) -> None:  # fmt: skip
        self.parts = parts
        self.unreadable = unreadable
        self.first = first
        self.last = last
        self._envelopes = envelopes  # of all events, where they could be read without making records
        self._selections: dict[tuple[str, Any], Selection] = {}
        self._notes: dict[Hashable, Any] = {}

    @classmethod
    def read(cls, messages: Sequence[Message], *, lanes: dict[Lane, int] | None = None) -> "Batch":
        """Decode messages, at least one, in the order of the log.

        `lanes` holds the last counter folded in each lane and is brought up to date: records that are not above it
        are left out.
        """
        parts, unreadable, envelopes = opened(messages, lanes)
        return cls(parts, unreadable, messages[0].seq, messages[-1].seq, envelopes)

    def __len__(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def _records(self) -> list[Record]:
        """All records as objects, in order; made only where their envelopes were not read."""
        frames = ((frame, start) for frame, start in self.parts if isinstance(frame, Frame))
        return list(chain.from_iterable([frame.records[start:] if start else frame.records for frame, start in frames]))

    @cached_property
    def counts(self) -> "npt.NDArray[np.int64]":
        """Events of each part."""
        return np.array([part.length - part.start for part in self.parts], np.int64)

    @cached_property
    def seq(self) -> "npt.NDArray[np.int64]":
        """Stream sequence of each event."""
        return self._spread([frame.seq for frame, _ in self.parts])

    @cached_property
    def idx(self) -> "npt.NDArray[np.int32]":
        """Index of each event in its frame."""
        if not self.parts:
            return np.empty(0, np.int32)
        first = np.array([part.start for part in self.parts], np.int64) - (np.cumsum(self.counts) - self.counts)
        places: npt.NDArray[np.int64] = np.arange(len(self)) + np.repeat(first, self.counts)
        return places.astype(np.int32)

    @cached_property
    def attempt(self) -> "npt.NDArray[np.int64]":
        """Attempt of each event."""
        return self._spread([frame.attempt for frame, _ in self.parts])

    @cached_property
    def rank(self) -> "npt.NDArray[np.int64]":
        """Rank of each event."""
        return self._spread([frame.rank for frame, _ in self.parts])

    @cached_property
    def run(self) -> Words:
        """Run of each event."""
        return strings([frame.run for frame, _ in self.parts]).repeat(self.counts)

    @cached_property
    def lane(self) -> Words:
        """`writer.family` of each event: its id without the counter."""
        return strings([f"{frame.writer}.{frame.family}" for frame, _ in self.parts]).repeat(self.counts)

    @cached_property
    def n(self) -> "npt.NDArray[np.int64]":
        """Counter of each event in its lane."""
        if self._envelopes is not None:
            return self._envelopes.n
        return np.array([record.n for record in self._records], np.int64)

    @cached_property
    def step(self) -> Gaps:
        """Step of each event; missing where the event has none, or one that no BIGINT holds."""
        if self._envelopes is not None:
            return self._envelopes.step
        steps: list[int | None] = [record.step for record in self._records]
        try:
            return Gaps(np.array(steps, np.int64))
        except (TypeError, OverflowError):
            known = [step is not None and -(2**63) <= step < 2**63 for step in steps]
            filled = [step if kept else 0 for step, kept in zip(steps, known, strict=True)]
            return Gaps(np.array(filled, np.int64), ~np.array(known, np.bool_))

    @cached_property
    def time(self) -> "npt.NDArray[np.int64]":
        """Wall-clock time of each event in unix nanoseconds."""
        if self._envelopes is not None:
            return self._envelopes.time
        times = [record.time for record in self._records]
        try:
            return np.array(times, np.int64)
        except OverflowError:
            return np.array([min(max(time, -_TIME_MAX), _TIME_MAX) for time in times], np.int64)

    @cached_property
    def kinds(self) -> Words:
        """Type of each event."""
        if self._envelopes is not None:
            return self._envelopes.kinds
        return strings([record.type for record in self._records])

    @cached_property
    def version(self) -> "npt.NDArray[np.int64]":
        """Version of each event's body, as it was written."""
        if self._envelopes is not None:
            return self._envelopes.version
        return np.array([record.version for record in self._records], np.int64)

    @cached_property
    def cause(self) -> Words:
        """Id of the event that each event says that it follows from."""
        if self._envelopes is not None:
            return self._envelopes.cause
        return strings([record.cause for record in self._records])

    @cached_property
    def types(self) -> frozenset[str]:
        """The event types in this batch."""
        return frozenset(self.kinds.words)

    def of(self, kind: str, shape: type[Any] | None = None) -> "Selection":
        """Return the events of one type that can be read as its newest class.

        `shape` is a struct to decode the bodies as, instead of the registered class: fewer fields, or raw ones.
        What cannot be read is no part of it; the built-in `events` still hold it. With msgspec.Raw the bodies are
        the bytes of the newest version, not yet read: the caller must find out whether they can be.
        """
        found = self._selections.get((kind, shape))
        if found is None:
            found = self._selections[kind, shape] = select(self, kind, shape)
        return found

    def bodies(self, at: "npt.NDArray[np.intp]") -> Bodies:
        """Return where the bodies of some events lie, as they were written."""
        found = self._envelopes
        if found is not None:
            return Bodies(found.data, found.starts[at], found.ends[at])
        return joined([self._records[place].body for place in at.tolist()])

    def once(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return what `make` returned for this key the first time: for work that a fold shares with `holds`."""
        if key not in self._notes:
            self._notes[key] = make()
        return self._notes[key]  # type: ignore[no-any-return]

    def release(self) -> None:
        """Let go of everything made so far; a batch and its selections hold one another."""
        self._selections.clear()
        self._notes.clear()

    def entries(self, kinds: Iterable[str]) -> Iterator[Entry]:
        """Yield the readable events of these types (or of all, for "*") one by one, in the order of the log."""
        wanted = sorted(self.types) if "*" in kinds else [kind for kind in kinds if kind in self.types]
        found = [(int(at), self.of(kind), i) for kind in wanted for i, at in enumerate(self.of(kind).positions)]
        if len(wanted) > 1:
            found.sort(key=lambda item: item[0])
        if not found:
            return
        seq, idx, n, version, attempt, rank, time = (
            self.seq, self.idx, self.n, self.version, self.attempt, self.rank, self.time
        )  # fmt: skip
        lane, run, cause, step = self.lane, self.run, self.cause, self.step
        for at, selection, i in found:
            yield Entry(
                int(seq[at]), int(idx[at]), f"{lane.at(at)}.{n[at]}", selection.type, int(version[at]), run.at(at),
                int(attempt[at]), int(rank[at]), step.at(at), int(time[at]), cause.at(at), selection.bodies[i],
            )  # fmt: skip

    def _spread(self, values: list[int]) -> "npt.NDArray[np.int64]":
        return np.repeat(np.array(values, np.int64), self.counts)
