"""The background thread that brings spools to the log: this process's own, and what dead writers left.

This side of it runs in the trainer's threads and imports no network code; the other side is `dispatcher`, which
the thread imports when it starts. It costs the trainer next to nothing: no work for single events, and a wake-up
only when it sleeps.
"""

import contextlib
import logging
import os
import threading
import time
import weakref

from ..settings import Settings
from .bell import Ear
from .desk import Desk, Flush
from .spool import Counts, Spool

_log = logging.getLogger("morphogen.bus")


class Publisher:
    """Publish the spools that are given to it with `add`, in one daemon thread that starts with the first.

    With `adopt`, spools of dead writers in the data folder are published too. Safe to use from any thread; a forked
    child may go on using the object that it inherited.
    """

    def __init__(self, settings: Settings, *, adopt: bool = True) -> None:
        self.settings = settings
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._desk = Desk(settings, adopt, Ear(), [])
        _live.add(self)

    @property
    def spools(self) -> list[Spool]:
        """Return the spools of this process."""
        return list(self._desk.spools)

    def add(self, spool: Spool) -> None:
        """Publish what is and will be appended to `spool`. Raises OSError where no file can be opened any more."""
        with self._lock:
            if self._desk.stop_at is not None and not self._alive():
                self._desk.stop_at = None  # it was closed: begin again
            self._desk.spools = [*(each for each in self._desk.spools if not each.finished), spool]
            spool.on_child = self._start
            self._start()

    def remove(self, spool: Spool, timeout: float = 5.0) -> bool:
        """Publish what `spool` holds for at most `timeout` seconds and close it; tell whether all is in the log.

        What is not stays on disk for the next start, or for `morphogen sync`.
        """
        self.flush(timeout, spool)
        with self._lock:
            self._desk.spools = [each for each in self._desk.spools if each is not spool]
            self._desk.removed.append(spool)
        self._ring()
        return _finish(spool)

    def flush(self, timeout: float, spool: Spool | None = None) -> bool:
        """Wait until all that was appended before this call is in the log; False after `timeout` seconds."""
        spools = self.spools if spool is None else [spool]
        flush = Flush([(lane, lane.n) for each in spools for lane in list(each.lanes.values()) if lane.pending])
        flush.settle()
        if flush.done.is_set() or not self._alive():
            return flush.done.is_set()
        self._desk.flushes.append(flush)
        try:
            self._ring()
            return flush.done.wait(timeout)
        finally:
            self._desk.flushes.remove(flush)

    def close(self, timeout: float = 5.0) -> bool:
        """Publish what waits for at most `timeout` seconds, end the thread, and close the spools.

        Returns whether all is in the log; what is not stays on disk for the next start, or for `morphogen sync`.
        """
        end = time.monotonic() + timeout
        self.flush(timeout)
        with self._lock:
            thread, self._desk.stop_at = self._thread, end
        if thread is not None and thread is not threading.current_thread():
            self._ring()
            thread.join(max(1.0, end - time.monotonic()))
        finished = [_finish(spool) for spool in self.spools]
        with self._lock:
            if not self._alive():
                self._stop_listening()
        return all(finished)

    def stats(self) -> dict[str, Counts]:
        """Return the counts of each family, over all own spools; damage is that of adopted ones."""
        total: dict[str, Counts] = {}
        for counts in [*(spool.stats() for spool in self.spools), *self._damage()]:
            for family, each in counts.items():
                total[family] = total.get(family, Counts()) + each
        return total

    def _damage(self) -> list[dict[str, Counts]]:
        return [{family: Counts(quarantined=count)} for family, count in list(self._desk.quarantined.items())]

    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _ring(self) -> None:
        ear = self._desk.ear
        if ear is not None:
            ear.ring()

    def _stop_listening(self) -> None:
        """Let go of the pipe: it is closed with the last one that may still be ringing."""
        for spool in self._desk.spools:
            spool.room.bell.ring = None
        self._desk.ear = None

    def _start(self) -> None:
        with self._lock:
            if self._desk.stop_at is not None:
                return
            ear = self._desk.ear = self._desk.ear or Ear()
            if not self._alive():
                self._thread = threading.Thread(
                    target=_publish, args=(self._desk,), name="morphogen publisher", daemon=True
                )
                try:
                    self._thread.start()
                except RuntimeError as error:  # no more threads, or the interpreter is ending: the spool keeps it all
                    _log.warning("no publisher thread (%s); events stay in the spool", error)
                    self._thread = None
                    return
            for spool in self._desk.spools:
                spool.room.bell.ring = ear.ring
            ear.ring()

    def _orphan(self) -> None:
        """Begin anew in a forked child. The parent's loop and sockets must not even be closed: they are shared."""
        _abandoned.append((self._desk, self._thread))
        self._lock = threading.RLock()
        self._thread = None
        ear = None if self._desk.ear is None else Ear()
        self._desk = Desk(self.settings, False, ear, self._desk.spools, stop_at=self._desk.stop_at)


def _finish(spool: Spool) -> bool:
    """Close a spool; tell whether all is in the log, and say how much of the rest has nowhere to stay."""
    last_word = not spool.finished
    done = spool.finish()
    lost = sum(lane.lost for lane in list(spool.lanes.values()))
    if last_word and lost:
        _log.warning("run %s: %d events are lost: no broker took them, and they were in memory only", spool.run, lost)
    return done


def _publish(desk: Desk) -> None:
    """Run a dispatcher until the desk says stop; whatever fails in it, the next one goes on."""
    while desk.stop_at is None:
        try:
            with _importing:
                import asyncio
                import encodings.ascii
                import encodings.idna  # noqa: F401  what the first connection imports

                from ..loop import new_loop
                from .dispatcher import Dispatcher
            with asyncio.Runner(loop_factory=new_loop) as runner:
                loop = runner.get_loop()
                _running.append(loop)
                try:
                    runner.run(Dispatcher(desk).run())
                finally:
                    _running.remove(loop)
        except Exception as error:  # noqa: BLE001  (the trainer must never see it, and the log must get its events)
            _log.warning("the publisher starts again after %s: %s", type(error).__name__, error)
            time.sleep(1.0)


# A child that is forked in the middle of an import keeps the half of the module, and the lock of it, for ever.
_importing = threading.RLock()
_LONGEST_IMPORT = 30.0  # seconds that a fork waits for it
_live: "weakref.WeakSet[Publisher]" = weakref.WeakSet()
_abandoned: list[object] = []  # what a forked child must not finalize
_running: list[object] = []  # event loops of this process
_held = False  # whether the thread that forks holds `_importing`


def _before_fork() -> None:
    global _held  # noqa: PLW0603
    _held = _importing.acquire(timeout=_LONGEST_IMPORT)


def _after_fork() -> None:
    if _held:
        _importing.release()


def _in_child() -> None:
    _after_fork()
    _abandoned.extend(_running)
    for publisher in list(_live):
        with contextlib.suppress(OSError):
            publisher._orphan()


def _in_parent() -> None:
    _after_fork()
    for publisher in list(_live):
        publisher._desk.forked = True


os.register_at_fork(before=_before_fork, after_in_child=_in_child, after_in_parent=_in_parent)
