"""The spool of a writer: its lanes in a folder, whose lock says that their owner lives.

    <home>/spool/<run>/<writer>/writer.json  lock  <family>/acked  <family>/00000001.seg ...

A forked child never touches its parent's spool: its first append opens one of its own, of kind "child".
"""

import contextlib
import logging
import os
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import msgspec

from morphogen.schemas.names import token
from morphogen.schemas.producers import ProducerDropped

from ..settings import Settings
from .attempts import next_attempt, note_attempt
from .kind import Kind
from .lane import HIGH_RATE_SEGMENT, SEGMENT, Lane
from .room import Loss, Room
from .writer import Writer, lock

_SMALLEST_SEGMENT = 64 << 10
_log = logging.getLogger("morphogen.bus")


class Counts(msgspec.Struct, frozen=True):
    """Tell what became of a family's events: appended, in the log, given up, refused, damaged on disk."""

    produced: int = 0
    acked: int = 0
    dropped: int = 0
    refused: int = 0
    quarantined: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.produced + other.produced, self.acked + other.acked, self.dropped + other.dropped,
            self.refused + other.refused, self.quarantined + other.quarantined,
        )  # fmt: skip


class Spool:
    """Hold the lanes of this process for one run; make it with `Spool.create`, publish it with `Publisher.add`.

    `attempt` may rise until `claimed` is set, and again should another process fence this one. `on_child` is
    called in a forked child, after its first append opened the child's own spool.
    """

    def __init__(self, settings: Settings, identity: Writer) -> None:
        self.settings = settings
        self.identity = identity
        self.folder: Path | None = None
        self.lanes: dict[str, Lane] = {}
        self.claimed = threading.Event()
        self.on_child: Callable[[], None] | None = None
        self.room = Room(settings.spool_limit, f"run {identity.run}")
        self.room.on_loss = self._on_loss
        self._losses: list[Loss] = []
        self._parent: Path | None = None
        self._lock_fd = -1
        self.finished = False

    @classmethod
    def create(cls, settings: Settings, *, run: str, rank: int = 0, attempt: int | None = None) -> "Spool":
        """Open a new spool for this process. Without `attempt` it takes the next one that this machine knows of.

        Where the data folder cannot be written to, the spool lives in memory, which is said in one line.
        """
        if attempt is None:
            try:
                attempt = next_attempt(settings.attempts_dir, run, rank)
            except OSError:
                attempt = 1
        else:
            note_attempt(settings.attempts_dir, run, rank, attempt)
        spool = cls(settings, Writer.new(run, rank, attempt))
        spool._found()
        _live.add(spool)
        return spool

    @property
    def run(self) -> str:
        """Return the name of the run."""
        return self.identity.run

    @property
    def rank(self) -> int:
        """Return the rank of this process."""
        return self.identity.rank

    @property
    def attempt(self) -> int:
        """Return the attempt under which events are published at present."""
        return self.identity.attempt

    @property
    def writer(self) -> str:
        """Return the id of this writer, 16 hex digits."""
        return self.identity.writer

    @property
    def pending(self) -> bool:
        """Tell whether anything is not yet in the log."""
        return any(lane.pending for lane in list(self.lanes.values()))

    def lane(self, family: str, *, high_rate: bool | None = None) -> Lane:
        """Return the lane of a family, the same one every time; one that was not told to be of high rate is not."""
        lane = self.lanes.get(family)
        if lane is None:
            with self.room.lock:
                lane = self.lanes.get(family)
                if lane is None:
                    largest = max(_SMALLEST_SEGMENT, self.settings.spool_limit // 16)
                    size = min(HIGH_RATE_SEGMENT if high_rate else SEGMENT, largest)
                    lane = Lane(self.folder, family, self.room, high_rate=bool(high_rate), segment_size=size)
                    if self.finished:  # its folder is gone, or another's: nothing may be written there any more
                        lane.close()
                    self.lanes = {**self.lanes, family: lane}
        if lane.high_rate and high_rate is False:
            lane.high_rate = False  # frames are dropped by lane, and this event never may be
            _log.warning(
                "run %s: some events of the family %r are of high rate and others may never be dropped, so none is when "
                "the spool is full: give those of high rate a family of their own", self.run, family,
            )  # fmt: skip
        return lane

    def move_to(self, attempt: int) -> None:
        """Go on under another attempt; it is on disk before the first frame is published under it."""
        self.identity.attempts.append(attempt)
        note_attempt(self.settings.attempts_dir, self.run, self.rank, attempt)
        if self.folder is not None:
            try:
                self.identity.save(self.folder)
            except OSError as error:
                _log.warning("run %s: cannot note attempt %d in the spool: %s", self.run, attempt, error.strerror)

    def stats(self) -> dict[str, Counts]:
        """Return the counts of each family."""
        return {
            family: Counts(produced=lane.n, acked=lane.acked, dropped=lane.dropped, refused=lane.refused)
            for family, lane in list(self.lanes.items())
        }

    def finish(self) -> bool:
        """Close the lanes. Delete the spool where all is in the log and return True; else leave it for the next."""
        with self.room.lock:
            if self.finished:
                return not self.pending
            self.finished = True
        for lane in self.lanes.values():
            lane.close()
        done = not self.pending
        if self.folder is not None and done:
            remove(self.folder)
        self._unlock()
        return done

    def _found(self) -> None:
        """Make the folder, complete and locked before anybody else can see it."""
        parent = self.settings.spool_dir / token(self.run)
        part, folder = parent / f".{self.writer}.new", parent / self.writer
        try:
            try:
                part.mkdir(mode=0o700, parents=True)
            except FileNotFoundError:  # the last writer of an earlier attempt has just deleted the run's folder
                part.mkdir(mode=0o700, parents=True)
            fd = lock(part)
            self._lock_fd = -1 if fd is None else fd
            self.identity.save(part)
            part.rename(folder)
        except OSError as error:
            _log.warning(
                "run %s: no spool in %s (%s); events are kept in memory only and a kill would lose them",
                self.run, parent, error.strerror,
            )  # fmt: skip
            self._unlock()
            return
        self.folder = folder

    def _unlock(self) -> None:
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _on_loss(self, loss: Loss) -> None:
        self._losses.append(loss)
        self.room.bell.leave(self._record_losses)

    def _record_losses(self) -> None:
        lane = self.lane("producer")
        while self._losses:
            loss = self._losses.pop(0)
            event = ProducerDropped(
                lane=loss.family, first=loss.first, last=loss.last, count=loss.count, bytes=loss.bytes,
                reason=loss.reason,
            )  # fmt: skip
            lane.append(_DROPPED, None, time.time_ns(), None, event.encode())

    def _orphan(self) -> None:
        """Let go of the parent's spool, right after a fork, in the child; nothing is opened before it is needed."""
        self._unlock()  # only our copy: the parent's keeps the lock
        if self.finished:
            self.room.lock = threading.RLock()  # which another thread may have held to refuse something
            return
        self.claimed = threading.Event()
        self.folder, self._parent = None, self.folder
        self._losses = []
        self.room.forget()
        for lane in self.lanes.values():
            lane.start(None)
        self.room.revive = self._revive

    def _revive(self) -> None:
        with self.room.lock:
            if self.room.revive is None:
                return
            self.room.revive = None
            parent = self.identity
            if self._parent is not None:
                parent = Writer.load(self._parent) or parent  # it may have moved to another attempt
            self.identity = Writer.new(parent.run, parent.rank, parent.attempt, kind="child", parent=parent.writer)
            self._found()
            for lane in self.lanes.values():
                lane.start(self.folder)
        if self.on_child is not None:
            self.on_child()


_DROPPED = Kind(ProducerDropped.type, ProducerDropped.version)
_live: "weakref.WeakSet[Spool]" = weakref.WeakSet()


def remove(folder: Path) -> None:
    """Delete a spool of which everything is in the log; it is gone at once, whatever happens on the way."""
    gone = folder.with_name(f".{folder.name}.gone")
    with contextlib.suppress(OSError):
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        folder.parent.rmdir()  # the last writer of a run turns off the light


def _after_fork() -> None:
    for spool in list(_live):
        spool._orphan()


os.register_at_fork(after_in_child=_after_fork)
