"""The same for programs without an event loop: connect, do it, close."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from morphogen.bus.connection import Connection, connect
from morphogen.bus.settings import Settings
from morphogen.bus.streams import ensure_streams

from .archive import ArchiveReport
from .archive import archive as archive_async
from .rebuild import RebuildReport
from .rebuild import rebuild as rebuild_async
from .span import Progress, silent
from .verify import VerifyReport
from .verify import verify as verify_async

_T = TypeVar("_T")


def archive(settings: Settings, *, progress: Progress = silent, **options: Any) -> ArchiveReport:
    """Archive the log; `options` are those of `morphogen.replay.archive.archive`."""
    return _run(settings, lambda conn: archive_async(conn, settings, progress=progress, **options))


def rebuild(settings: Settings, names: Iterable[str] | None = None, *, progress: Progress = silent) -> RebuildReport:
    """Make these projections, or all, anew from the past."""
    return _run(settings, lambda conn: rebuild_async(conn, settings, names, progress=progress))


def verify(settings: Settings, *, progress: Progress = silent) -> VerifyReport:
    """Compare the tables with what the log says."""
    return _run(settings, lambda conn: verify_async(conn, settings, progress=progress))


def _run(settings: Settings, work: Callable[[Connection], Awaitable[_T]]) -> _T:
    async def main() -> _T:
        conn = await connect(settings, name="replay")
        try:
            await ensure_streams(conn)
            return await work(conn)
        finally:
            await conn.close()

    return asyncio.run(main())
