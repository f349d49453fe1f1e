"""Fold a stretch of the past into a DuckDB file of its own: a run to keep, a past to ask without the rest."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from morphogen.bus.connection import Connection
from morphogen.bus.past import extent
from morphogen.bus.reader import Message
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.errors import StoreDamaged
from morphogen.consumers.projections.follow.folder import Folder
from morphogen.consumers.projections.projection import Projection
from morphogen.consumers.projections.store import Store
from morphogen.consumers.projections.store.duckfile import MEND
from morphogen.schemas import Frame

from .bodiless import bodiless
from .errors import SinkFailed
from .finishing import finish
from .past_source import FOLD_BYTES
from .replay import ReplayReport, replay
from .span import Point, Progress, silent


class ProjectionSink:
    """A new store in the file `path`, with the tables of all projections (or of those given) over what is put.

    With `resume` the file must be there, made by a replay of the same log that was interrupted: go on after its
    `position`. Only what the filters let through is folded; as in any store, what was folded before is left out.
    Raises SinkFailed where the file is there (or, with `resume`, is not), StoreDamaged where it is of another log.
    """

    replay: str | None = None
    whole = True

    def __init__(
        self,
        path: Path,
        epoch: str,
        *,
        projections: Sequence[Projection] | None = None,
        resume: bool = False,
    ) -> None:
        if path.exists() and not resume:
            raise SinkFailed(f"{path} is there already: name another file, or resume the replay that made it")
        if resume and not path.exists():
            raise SinkFailed(f"{path} is not there to be resumed: start without")
        if not path.parent.is_dir():
            raise SinkFailed(f"{path.parent} is no folder: make it first")
        self.path = path
        self.position = 0
        self.bodiless = 0
        """How many events of the file have no body, once it is closed."""
        self._open_store = partial(Store.open, path, projections, epoch=epoch)
        self._store: Store | None = None
        self._folder: Folder | None = None
        self._waiting: list[Message] = []
        self._bytes = 0
        self._whole = True  # every commit that was tried is in the file
        if resume:
            try:
                self._store = self._open_store()
            except StoreDamaged as error:
                reason = str(error).removesuffix(f": {MEND}")
                raise SinkFailed(f"{reason}, so the replay into it cannot go on: fold into another file") from error
            self.position = self._store.position()

    async def begin(self, position: int) -> None:
        """Open the file, and write down where it begins: so a resumed replay knows, however early it was killed."""
        await finish(self._begin, position)

    async def put(self, message: Message, frame: Frame | None, error: str | None) -> None:
        """Take a message; it is folded with those around it."""
        self._waiting.append(message)
        self._bytes += len(message.data)
        if self._bytes >= FOLD_BYTES:
            await self._fold()

    async def close(self, position: int, complete: bool) -> None:
        """Fold what is left, write down how far it is, and close the file; after a failed commit it stays as it was."""
        failed: list[str] = []
        if self._store is None:
            return
        try:
            if self._folder is not None and self._whole:
                await self._fold()
                await asyncio.to_thread(self._store.advance, self._store.live, position)
                failed = [one.error for one in self._store.generations if one.error is not None]
                self.bodiless = await asyncio.to_thread(bodiless, self._store)
        finally:
            await asyncio.to_thread(self._store.close)
        if failed:
            raise SinkFailed(f"{self.path} is not whole: {failed[0]}")

    async def _fold(self) -> None:
        if self._waiting:
            waiting, self._waiting, self._bytes = self._waiting, [], 0
            await finish(self._commit, waiting)

    def _begin(self, position: int) -> None:
        if self._store is not None:
            self._folder = Folder(self._store.live, self._store.lanes(self.position))
            return
        try:
            self._store = self._open_store()
            self._store.advance(self._store.live, position)
            self._folder = Folder(self._store.live, {})
        except BaseException:  # a file that does not say where it begins is none to resume
            if self._store is not None:
                self._store.close()
            self.path.unlink(missing_ok=True)
            self.path.with_name(self.path.name + ".wal").unlink(missing_ok=True)
            raise

    def _commit(self, messages: list[Message]) -> None:
        assert self._store is not None
        assert self._folder is not None
        self._whole = False  # until it is in the file: what was folded is not folded twice
        self._store.commit(self._folder.fold(messages))
        self._whole = True


async def into_projection(
    conn: Connection | None,
    settings: Settings,
    path: Path,
    *,
    from_: Point | None = None,
    to: Point | None = None,
    run: str | None = None,
    types: Iterable[str] = (),
    resume: bool = False,
    epoch: str | None = None,
    projections: Sequence[Projection] | None = None,
    progress: Progress = silent,
) -> ReplayReport:
    """Replay a stretch of the past into a DuckDB file; with `resume`, what is left after an interruption.

    Where it began is in the file; `to`, `run` and `types` are given again. Bodies that lie in blobs are fetched where
    there is a connection; the report counts those that the whole file lacks.
    Raises what `ProjectionSink` and `replay` raise.
    """
    reach = await extent(conn, settings, epoch)
    sink = await asyncio.to_thread(lambda: ProjectionSink(path, reach.epoch, projections=projections, resume=resume))
    if resume:
        from_ = sink.position + 1
    report = await replay(
        conn, settings, sink, from_=from_, to=to, run=run, types=types, epoch=reach.epoch, progress=progress
    )
    return replace(report, bodiless=max(report.bodiless, sink.bodiless))
