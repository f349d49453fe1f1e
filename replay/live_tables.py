"""The live tables, wherever they are: in a file that nobody holds, or behind the service of a running projector."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from morphogen.bus.connection import Connection
from morphogen.bus.errors import NoResponders
from morphogen.bus.requests import call_stream
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.follow.projector import store_path
from morphogen.consumers.projections.projection import Projection
from morphogen.consumers.projections.sql.answer import Answer
from morphogen.consumers.projections.sql.formats import Result
from morphogen.consumers.projections.sql.protocol import QUERY, Ask, encode
from morphogen.consumers.projections.store import Store

from .rebuild import ask

_PATIENCE = 3600.0  # seconds that one hash over a large table may take


@dataclass(frozen=True)
class LiveTables:
    """The tables as they stand at `position`; `side` runs queries on them, as of then, from any thread but the loop's.

    `stopped` has the reason for each projection that does not go on with the log.
    """

    position: int
    tables: tuple[str, ...]
    stopped: dict[str, str]
    side: Any


@contextlib.asynccontextmanager
async def live_tables(
    conn: Connection | None, settings: Settings, epoch: str, projections: Sequence[Projection] | None = None
) -> AsyncIterator[LiveTables | None]:
    """Give the live tables of a log, None where it has none yet. Raises StoreLocked, StoreDamaged, RebuildFailed."""
    if conn is not None:
        try:
            status = await ask(conn, "status")
        except NoResponders:
            pass
        else:
            state = await ask(conn, "generations")
            stopped = {name: error for name, _, _, live, error in state["generations"] if live and error is not None}
            remote = _Remote(conn, int(status["position"]))
            yield LiveTables(remote.position, tuple(status["tables"]), stopped, remote)
            return
    path = store_path(settings, epoch)
    if not path.exists():
        yield None
        return
    store = await asyncio.to_thread(Store.open, path, projections, epoch=epoch)
    try:
        # What failed before is not tried again here: it stands where it stood.
        failed = {one: reason for one in store.generations if (reason := one.error or one.failed_before)}
        names = {one.projection.name for one in failed}
        stopped = {one.projection.name: reason for one, reason in failed.items() if one.live}
        going = [one for one in store.generations if one.live and one not in failed]
        position = min((one.seq for one in going if not (one.outdated and one.projection.name in names)), default=0)
        with store.reading(position) as cursor:
            yield LiveTables(position, tuple(store.views()), stopped, cursor)
    finally:
        await asyncio.to_thread(store.close)


class _Remote:
    """Asks the SQL service, as of a position; used from a thread beside the loop."""

    def __init__(self, conn: Connection, position: int) -> None:
        self.position = position
        self._conn = conn
        self._loop = asyncio.get_running_loop()

    def execute(self, query: str) -> "_Fetched":
        """Run a query and fetch all of its rows."""
        result = asyncio.run_coroutine_threadsafe(self._ask(query), self._loop).result()
        return _Fetched([tuple(row.values()) for row in result])

    async def _ask(self, query: str) -> Result:
        answer = Answer()
        question = encode(Ask(sql=query, as_of=self.position, timeout=_PATIENCE))
        chunks = call_stream(self._conn, QUERY, question, timeout=_PATIENCE, idle_timeout=60.0)
        try:
            async for part in chunks:
                answer.add(part)
        finally:
            await chunks.aclose()
        return answer.result()


class _Fetched:
    def __init__(self, rows: list[tuple[Any, ...]]) -> None:
        self._rows = rows

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows.pop(0) if self._rows else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        rows, self._rows = self._rows, []
        return rows
