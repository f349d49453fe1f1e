"""Fold a stretch of the past into a DuckDB file of its own: a run to keep, a past to ask without the rest."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from morphogen.bus.connection import Connection
from morphogen.bus.past import extent
from morphogen.bus.reader import Message
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.follow.folder import Folder
from morphogen.consumers.projections.projection import Projection
from morphogen.consumers.projections.store import Store
from morphogen.schemas import Frame

from .errors import SinkFailed
from .past_source import FOLD_BYTES, blobs_of
from .replay import ReplayReport, replay
from .span import Point, Progress, silent


class ProjectionSink:
    """A new store in the file `path`, with the tables of all projections (or of those given) over what is put.

    With `resume` the file must be there, made by a replay of the same log that was interrupted: go on after its
    `position`. Only what the filters let through is folded; as in any store, what was folded before is left out.
    Raises SinkFailed where the file is there (or, with `resume`, is not), StoreDamaged where it is of another log.
    """

    replay: str | None = None

    def __init__(
        self,
        path: Path,
        epoch: str,
        *,
        projections: Sequence[Projection] | None = None,
        resolve: Callable[[str], bytes] | None = None,
        resume: bool = False,
    ) -> None:
        if path.exists() and not resume:
            raise SinkFailed(f"{path} is there already: name another file, or resume the replay that made it")
        if resume and not path.exists():
            raise SinkFailed(f"{path} is not there to be resumed: start without")
        if not path.parent.is_dir():
            raise SinkFailed(f"{path.parent} is no folder: make it first")
        self.path = path
        self._store = Store.open(path, projections, epoch=epoch)
        self.position = self._store.position()
        self._folder = Folder(self._store.live, self._store.lanes(self.position), resolve)
        self._waiting: list[Message] = []
        self._bytes = 0

    async def put(self, message: Message, frame: Frame | None, error: str | None) -> None:
        """Take a message; it is folded with those around it."""
        self._waiting.append(message)
        self._bytes += len(message.data)
        if self._bytes >= FOLD_BYTES:
            await self._fold()

    async def close(self, position: int, complete: bool) -> None:
        """Fold what is left, write down how far it is, and close the file."""
        try:
            await self._fold()
            await asyncio.to_thread(self._store.advance, self._store.live, position)
            failed = [one.error for one in self._store.generations if one.error is not None]
        finally:
            await asyncio.to_thread(self._store.close)
        if failed:
            raise SinkFailed(f"{self.path} is not whole: {failed[0]}")

    async def _fold(self) -> None:
        if self._waiting:
            waiting, self._waiting, self._bytes = self._waiting, [], 0
            work = asyncio.ensure_future(asyncio.to_thread(self._commit, waiting))
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])
                raise

    def _commit(self, messages: list[Message]) -> None:
        self._store.commit(self._folder.fold(messages))


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
    projections: Sequence[Projection] | None = None,
    progress: Progress = silent,
) -> ReplayReport:
    """Replay a stretch of the past into a DuckDB file; with `resume`, what is left after an interruption.

    Blobs that bodies refer to are fetched. Raises what `ProjectionSink` and `replay` raise.
    """
    reach = await extent(conn, settings)
    fetch = blobs_of(conn) if conn is not None else None
    sink = await asyncio.to_thread(
        lambda: ProjectionSink(path, reach.epoch, projections=projections, resolve=fetch, resume=resume)
    )
    if resume:
        from_ = sink.position + 1
    return await replay(conn, settings, sink, from_=from_, to=to, run=run, types=types, progress=progress)
