"""The inside of the background thread: who gets published when, and what else has to be done now and then.

While events flow it looks as often as `Pace` says, every 2 to 8 ms or, where they only trickle, up to every 500 ms, and
nobody has to wake it. After 0.75 s without any it blocks, and the next append wakes it. Waiting for the disk and
reserving segments is left to `Chores`.
"""

import asyncio
import contextlib
import logging
import time
from functools import partial
from pathlib import Path

from ..connection import Connection, connect
from ..errors import BusError
from ..streams import ensure_streams
from .alarm import Alarm
from .bell import Ear
from .chores import Chores
from .courier import Courier
from .desk import Desk
from .leftover import Leftover, Unreadable, leftovers
from .pace import LINGER, QUIET, Pace
from .spool import Spool

_LONGEST_FUTILE = 0.25
_SYNC_EVERY = 1.0
_ADOPT_EVERY = 5.0
_CONNECT_PAUSES = (0.1, 5.0)
_ADOPTED_BUDGET = 64 << 10  # bytes a frame of a leftover: small ones, so that walking them never holds up the trainer
_ADOPT_AT_ONCE = 4

_log = logging.getLogger("morphogen.bus")


class Dispatcher:
    """Serve a desk until it says stop."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._conn: Connection | None = None
        self._couriers: dict[int, Courier] = {}
        self._news = Alarm()  # something to look at
        self._hurry = Alarm()  # somebody waits: no lingering
        self._chores = Chores("morphogen chores")
        self._disk = Chores("morphogen disk")  # apart: a segment that is needed soon does not wait for the disk
        self._adopting: asyncio.Task[None] | None = None
        self._next_sync = self._next_adoption = 0.0

    async def run(self) -> None:
        """Publish until the desk says stop, then let go of everything within a few seconds."""
        loop = asyncio.get_running_loop()
        ear = self._desk.ear
        assert ear is not None, "who starts this has it opened"
        loop.add_reader(ear.fd, self._heard, ear)
        connecting = asyncio.create_task(self._connect())
        try:
            await self._serve()
        finally:
            loop.remove_reader(ear.fd)
            connecting.cancel()
            for courier in self._couriers.values():
                courier.stop()
            for spool in self._desk.spools:
                _write_marks(spool)
            if self._adopting is not None:
                self._adopting.cancel()
                await asyncio.wait((self._adopting,), timeout=1.0)
            self._chores.close()
            self._disk.close()
            if self._conn is not None:
                await self._conn.close()

    # ------------------------------------------------------------------ when

    async def _serve(self) -> None:
        linger, last_start, futile = LINGER, 0.0, LINGER
        pace, worked = Pace(), time.thread_time()
        while not await self._stopping():
            now = time.monotonic()
            patient = self._only_numbers()
            if patient and now < pace.due and not self._desk.hurry:
                await self._hurry.wait(pace.due - now)
                continue
            started = self._kick()
            self._keep_house(now)
            self._settle()
            if started:
                cost, worked = time.thread_time() - worked, time.thread_time()
                linger = pace.next(now, self._records(), cost, patient=patient)
                last_start, futile = now, LINGER
            if now - last_start < QUIET:
                await self._hurry.wait(linger)
                continue
            for spool in self._desk.spools:
                _write_marks(spool)
            self._listen(True)
            if self._startable():  # an append may have come before it could see that we listen
                self._listen(False)
                continue
            await self._news.wait(_SYNC_EVERY if self._unacknowledged() else None)
            self._listen(False)
            if not self._startable() and not self._desk.hurry:
                await self._hurry.wait(futile)  # every lane waits for its answer: more events change nothing
                futile = min(futile * 2, _LONGEST_FUTILE)

    def _only_numbers(self) -> bool:
        """Tell whether something waits, and all of it is of lanes of high rate; of other events none waits long."""
        lanes = [lane for spool in self._desk.spools for lane in list(spool.lanes.values()) if lane.pending]
        return bool(lanes) and all(lane.high_rate for lane in lanes)

    def _records(self) -> int:
        """Return how many records there were ever."""
        return sum(lane.n for spool in self._desk.spools for lane in list(spool.lanes.values()))

    def _heard(self, ear: Ear) -> None:
        ear.quiet()
        self._news.set()
        if self._desk.hurry:
            self._hurry.set()

    def _on_progress(self) -> None:
        self._settle()
        self._news.set()
        if self._desk.hurry:
            self._hurry.set()

    def _settle(self) -> None:
        for flush in list(self._desk.flushes):
            flush.settle()

    def _listen(self, on: bool) -> None:
        for spool in self._desk.spools:
            spool.room.bell.attention = on

    async def _stopping(self) -> bool:
        """Tell whether to end; what forked children left is published first, while there is time."""
        if self._desk.stop_at is None:
            return False
        left = self._desk.stop_at - time.monotonic()
        if self._conn is not None and left > 0 and self._desk.forked:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._adopt(self._runs())
        return True

    # ------------------------------------------------------------------ what

    def _kick(self) -> bool:
        """Start publishing what waits; tell whether there was anything to start."""
        for spool in list(self._desk.removed):
            self._desk.removed.remove(spool)
            courier = self._couriers.pop(id(spool), None)
            if courier is not None:
                courier.stop()
            _write_marks(spool)
        if self._conn is None:
            return False
        started = False
        for spool in self._desk.spools:
            if spool.pending:
                courier = self._couriers.get(id(spool))
                if courier is None:
                    courier = self._couriers[id(spool)] = Courier(self._conn, spool, on_progress=self._on_progress)
                started = courier.kick(patient=not self._desk.flushes) or started
        return started

    def _startable(self) -> bool:
        if self._conn is None:
            return False
        for spool in self._desk.spools:
            courier = self._couriers.get(id(spool))
            if spool.pending and (courier is None or courier.startable):
                return True
        return False

    def _unacknowledged(self) -> bool:
        return any(spool.pending for spool in self._desk.spools)

    def _keep_house(self, now: float) -> None:
        """Have the disk take what waits, have segments ready, look for what others left."""
        sync = now >= self._next_sync
        if sync:
            self._next_sync = now + _SYNC_EVERY
        for spool in self._desk.spools:
            for lane in list(spool.lanes.values()):
                if sync:  # not oftener: a training thread in Python waits for each call of the system
                    lane.mark.write()
                if lane.wants_spare:
                    self._chores.do(lane.prepare)
                if (ahead := lane.ahead()) is not None:
                    self._chores.do(partial(ahead[0].warm, ahead[1]))
                if sync and lane.pending:
                    for segment in lane.unsynced():
                        self._disk.do(segment.sync)
        busy = self._adopting is not None and not self._adopting.done()
        if self._conn is not None and not busy and now >= self._next_adoption:
            everything = self._desk.adopt and not self._next_adoption
            self._next_adoption = now + _ADOPT_EVERY
            if everything or self._desk.forked:
                self._adopting = asyncio.create_task(self._adopt(None if everything else self._runs()))

    async def _connect(self) -> None:
        pause, longest = _CONNECT_PAUSES
        said = False
        while True:
            conn = None
            try:
                conn = await connect(self._desk.settings, name="publisher")
                await ensure_streams(conn)
                break
            except Exception as error:  # noqa: BLE001  (nothing may end the way to the log)
                reason = str(error) if isinstance(error, BusError) else f"{type(error).__name__}: {error}"
                if not said:
                    _log.warning("cannot reach the log, events stay in the spool until it is there: %s", reason)
                    said = True
            if conn is not None:
                await conn.close()
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
        if said:
            _log.info("the log is there; what waited in the spool is being published")
        self._conn = conn
        self._news.set()
        self._hurry.set()

    # ------------------------------------------------------------------ what others left

    def _runs(self) -> set[str]:
        return {spool.run for spool in self._desk.spools}

    async def _adopt(self, runs: "set[str] | None") -> None:
        """Publish the spools of dead writers, of some runs or of all, and delete them."""
        own = {spool.folder for spool in self._desk.spools}
        folders = [path for run in (runs or (None,)) for path in leftovers(self._desk.settings, run)]
        limit = asyncio.Semaphore(_ADOPT_AT_ONCE)
        await asyncio.gather(*(self._adopt_one(folder, limit) for folder in folders if folder not in own))

    async def _adopt_one(self, folder: Path, limit: asyncio.Semaphore) -> None:
        async with limit:
            try:
                left = Leftover.adopt(self._desk.settings, folder, _ADOPTED_BUDGET)
            except Unreadable as error:
                _log.warning("%s", error)
                return
            if left is None or self._conn is None:
                return
            courier = Courier(self._conn, left, budget=_ADOPTED_BUDGET)
            try:
                await courier.finish()
                left.finish()
            except Exception as error:  # noqa: BLE001  (one bad folder must not keep the others from the log)
                _log.warning("%s: cannot be published now: %s: %s", folder, type(error).__name__, error)
            finally:
                courier.stop()
                left.release()
                for family, lane in left.lanes.items():
                    if lane.quarantined:
                        counts = self._desk.quarantined
                        counts[family] = counts.get(family, 0) + lane.quarantined


def _write_marks(spool: Spool) -> None:
    for lane in list(spool.lanes.values()):
        lane.mark.write()
