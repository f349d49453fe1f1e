"""Keeps a store up with its log: catches up once, or follows for ever; builds new generations beside the live ones."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from morphogen.bus.errors import ArchiveError, LogGap

from ..errors import PositionBeyondLog
from ..store.generation import Folded, Generation
from ..store.store import Store
from .conveyor import BATCH_BYTES, Conveyor
from .folder import Folder
from .source import Progress, Source

_log = logging.getLogger("morphogen.projections")
_NEAR = 256  # messages: a build this close to the live position is joined while the live one waits


class Follower:
    """Folds a log into a store. One at a time may work on a store."""

    def __init__(
        self,
        store: Store,
        source: Source,
        *,
        batch_bytes: int = BATCH_BYTES,
        on_commit: Callable[[Folded], None] | None = None,
    ) -> None:
        self.store = store
        self.source = source
        self._batch_bytes = batch_bytes
        self._on_commit = on_commit
        self._feeding = asyncio.Lock()  # held while messages are put before the live generations, and while one joins

    async def catch_up(self, upto: int | None = None, progress: Progress | None = None) -> int:
        """Bring every projection up to the end of the log (or to `upto`), build what must be built, and return where.

        Raises PositionBeyondLog where the store has seen more than the log holds.
        """
        end = await self._end()
        target = end if upto is None else min(upto, end)
        live = self._live()
        if live:
            await self._advance(live, target, progress)
        await self._build(target, progress)
        return self.store.position()

    async def follow(self, stop: asyncio.Event) -> None:
        """Fold whatever comes until `stop` is set; what was read by then is committed."""
        await self._end()
        if not self._live():  # nothing goes on by itself: all is new, or of an older version
            await self._build(await self._end(), None)
        folder = self._folder(self._live())
        conveyor = self._conveyor(folder)
        tasks = [
            asyncio.create_task(self._feed(conveyor), name="projector-feed"),
            asyncio.create_task(self._join_builds(conveyor), name="projector-build"),
            asyncio.create_task(conveyor.over(), name="projector-fold"),
            asyncio.create_task(stop.wait(), name="projector-stop"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await conveyor.close(drain=stop.is_set())

    async def _feed(self, conveyor: Conveyor) -> None:
        after = self.store.front()
        while True:
            async with contextlib.aclosing(self.source.read(after, follow=True)) as messages:
                async for some in messages:
                    after = some[-1].seq
                    self.store.head = max(self.store.head, after)
                    async with self._feeding:
                        await conveyor.put(some)

    async def _join_builds(self, live: Conveyor) -> None:
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            if self.store.behind:
                loop.call_soon_threadsafe(changed.set)

        stop = self.store.listen(wake)
        try:
            while True:
                changed.clear()
                while self.store.behind:
                    await self._build_beside(live)
                await changed.wait()
        finally:
            stop()

    async def _build_beside(self, live: Conveyor) -> None:
        """Build all that is behind while the live generations go on; hold those back only for the last messages."""
        while (behind := self.store.behind) and min(one.seq for one in behind) < self.store.front() - _NEAR:
            await self._advance_lowest(behind, self.store.front(), None)
        async with self._feeding:
            await live.drain()
            await self._build(self.store.front(), None)
            live.folder.fold_for(self._live())

    async def _build(self, target: int, progress: Progress | None) -> None:
        """Bring up all that is behind and swap new generations in. The live ones must stand still."""
        goal = max(target, self.store.front())
        if not self._live():
            goal = target
        while (behind := self.store.behind) and min(one.seq for one in behind) < goal:
            await self._advance_lowest(behind, goal, progress)
        if finished := [one for one in self.store.behind if not one.live]:
            await asyncio.to_thread(self.store.swap, finished)
            names = ", ".join(sorted(one.projection.name for one in finished))
            _log.info("built %s from the beginning of the log", names)

    async def _advance_lowest(self, behind: Sequence[Generation], goal: int, progress: Progress | None) -> None:
        """Advance those that are furthest behind to where the next ones stand."""
        lowest = min(one.seq for one in behind)
        upto = min([one.seq for one in behind if one.seq > lowest] + [goal])
        group = [one for one in behind if one.seq == lowest]
        try:
            await self._advance(group, upto, progress)
        except (ArchiveError, LogGap) as error:
            if not self.store.live or any(one.live for one in group):
                raise
            # Made beside tables that stand, which go on answering.
            self.store.give_up(
                {one: f"projection {one.projection.name!r} cannot be made anew: {error}" for one in group}
            )
            _log.error("tables cannot be made anew: %s", error)

    async def _advance(self, group: Sequence[Generation], upto: int, progress: Progress | None) -> None:
        """Fold everything up to `upto` for generations that stand at one position."""
        after = group[0].seq
        if after >= upto:
            return

        def told(folded: Folded) -> None:
            if self._on_commit is not None:
                self._on_commit(folded)
            if progress is not None:
                progress(folded.last - after, upto - after)

        conveyor = Conveyor(self.store, self._folder(group), batch_bytes=self._batch_bytes, on_commit=told)
        try:
            async with contextlib.aclosing(self.source.read(after, upto)) as messages:
                async for some in messages:
                    await conveyor.put(some)
            await conveyor.drain()
        finally:
            await conveyor.close(drain=False)
        await asyncio.to_thread(self.store.advance, group, upto)

    def _live(self) -> list[Generation]:
        front = self.store.front()
        return [one for one in self.store.live if one.error is None and one.seq == front]

    def _folder(self, group: Sequence[Generation]) -> Folder:
        return Folder(group, self.store.lanes(group[0].seq if group else 0))

    def _conveyor(self, folder: Folder) -> Conveyor:
        return Conveyor(self.store, folder, batch_bytes=self._batch_bytes, on_commit=self._on_commit)

    async def _end(self) -> int:
        end = await self.source.end()
        self.store.head = max(self.store.head, end)
        if self.store.front() > end:
            raise PositionBeyondLog(
                f"{self.store.path} has seen the log up to message {self.store.front()}, but the log ends at {end}: it "
                "was restored from an older copy; run `morphogen rebuild` to make the store anew from it"
            )
        return end
