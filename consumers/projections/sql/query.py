"""Ask for rows in SQL, from any process and any machine on the bus.

    result = query("SELECT name, avg(value) FROM metrics GROUP BY name", as_of="5m ago")
    result.pandas()

The projector answers where one runs. Where none does, this process opens the store itself, catches up with the log,
answers, and lets it go, so that nothing need be started first.
"""

import asyncio
import atexit
import contextlib
import math
import operator
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from morphogen.bus.aside import in_thread
from morphogen.bus.bus import Bus
from morphogen.bus.connection import Connection
from morphogen.bus.errors import Disconnected, NoBroker, NoResponders, RequestTimeout, ServiceError, lasting
from morphogen.bus.requests import call, call_stream
from morphogen.bus.settings import Settings

from ..errors import StoreLocked
from .asof import AsOf, parse_as_of
from .errors import KINDS, SqlError, SqlRefused, SqlTooLong
from .protocol import CONTROL, QUERY, Ask, Control, Status, decode_ask, decode_reply, encode, packed_params

if TYPE_CHECKING:
    from ..follow.source import Progress
    from .formats import Result
    from .sandbox import Params

AT_ONCE = 0.1  # seconds in which most answers are there
REPLY_PATIENCE = 5.0  # seconds more in which a projector that works says at least `later`
GRACE = 1.0  # seconds past the end in which the projector's own word on it arrives
SILENCE = 10.0  # seconds in which a projector that is at work gives a sign of life
LOCK_PATIENCE = 10.0  # seconds in which a store that one other process owns is tried again
SNAPSHOT_PATIENCE = 3600.0
LONGEST_TIMEOUT = 86_400.0

_T = TypeVar("_T")


def query(
    sql: str,
    *,
    params: "Params" = None,
    as_of: AsOf = None,
    wait: int | bool | None = None,
    timeout: float = 30.0,
    max_rows: int | None = None,
    settings: Settings | None = None,
    progress: "Progress | None" = None,
) -> "Result":
    """Return the rows of one SELECT over the projections.

    `params` fill `?` or `$name`. `as_of` answers as the tables stood at a sequence of the log or a time (a datetime,
    an ISO string, "5m ago"; without a zone it is local). `wait` asks for an answer that holds at least that sequence,
    or with True all that the log holds now. `max_rows` cuts the answer. `progress(done, total)` hears of the
    catching up where no projector runs.

    Raises SqlError and what stands below it (refused, too long, too large, busy, position not reached), each in one
    line, and the errors of the bus. Interrupting it (Ctrl-C) stops the query where it runs.
    """
    client = SqlClient.shared(settings)
    return client.query(
        sql, params=params, as_of=as_of, wait=wait, timeout=timeout, max_rows=max_rows, progress=progress
    )


def snapshot(
    target: Path | str, form: str = "duckdb", *, settings: Settings | None = None, progress: "Progress | None" = None
) -> Path:
    """Write all tables at one position into a DuckDB file or a folder of Parquet for outside tools; return its path.

    See `snapshot.write_snapshot` for the names. The projector writes it where one runs on this machine.
    """
    return SqlClient.shared(settings).snapshot(target, form, progress=progress)


def status(*, settings: Settings | None = None, timeout: float = 5.0) -> Status | None:
    """Return how the projector stands, or None where none runs."""
    return SqlClient.shared(settings).status(timeout=timeout)


def wait_for(seq: int | None = None, *, timeout: float = 30.0, settings: Settings | None = None) -> int:
    """Return the projector's position once it is at `seq`, or at the end that the log has now.

    Raises PositionNotReached after `timeout` seconds, NoResponders where no projector runs.
    """
    return SqlClient.shared(settings).wait_for(seq, timeout=timeout)


class SqlClient:
    """Asks one bus, from any thread, many questions at once. It connects with the first."""

    _all: "dict[tuple[int, Settings], SqlClient]" = {}  # noqa: RUF012  (one for each bus and process)
    _guard = threading.Lock()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._bus: Bus | None = None
        self._opening = threading.Lock()

    @classmethod
    def shared(cls, settings: Settings | None = None) -> "SqlClient":
        """Return this process's client of a bus; it stays connected for the next question."""
        settings = settings or Settings.from_environ()
        key = (os.getpid(), settings)  # a forked child has no thread of its parent's
        with cls._guard:
            client = cls._all.get(key)
            if client is None:
                client = cls._all[key] = cls(settings)
                atexit.register(client.close)
            return client

    def query(
        self,
        sql: str,
        *,
        params: "Params" = None,
        as_of: AsOf = None,
        wait: int | bool | None = None,
        timeout: float = 30.0,
        max_rows: int | None = None,
        progress: "Progress | None" = None,
    ) -> "Result":
        """Return the rows of one SELECT; see the function of the same name."""
        if not isinstance(sql, str):
            raise SqlRefused(f"refused: a query is text, not {type(sql).__name__}")
        seq, ns = parse_as_of(as_of)
        question = Ask(
            sql=sql,
            params=_params(params),
            as_of=seq,
            as_of_ns=ns,
            wait=_whole("wait", wait) if wait is not None and not isinstance(wait, bool) else None,
            fresh=wait is True,
            timeout=_seconds(timeout),
            max_rows=None if max_rows is None else _whole("max_rows", max_rows),
        )
        try:
            payload = encode(question)
        except NotImplementedError as error:
            raise SqlError(str(error)) from None
        except UnicodeEncodeError as error:  # a lone surrogate, as Python makes of bytes that the locale does not know
            raise SqlError(
                f"the query holds {error.object[error.start]!r}, which is no character: is the locale (LC_ALL) UTF-8?"
            ) from None
        except (TypeError, ValueError, RuntimeError) as error:  # a tensor of another device
            raise SqlError(f"the query cannot be sent: {error}") from None
        return self._run(lambda conn: self._ask(conn, question, payload, progress))

    def snapshot(self, target: Path | str, form: str = "duckdb", *, progress: "Progress | None" = None) -> Path:
        """Write a snapshot; see the function of the same name."""
        place = os.path.join(Path.cwd(), os.path.expanduser(target))  # which keeps a slash at its end
        return self._run(lambda conn: self._snapshot(conn, place, form, progress))

    def status(self, *, timeout: float = 5.0) -> Status | None:
        """Return how the projector stands, or None where none runs."""
        try:
            values = self._status(timeout)
        except (NoResponders, NoBroker):
            return None
        return Status(**values)

    def wait_for(self, seq: int | None = None, *, timeout: float = 30.0) -> int:
        """Return the projector's position once it is at `seq`, or at the end that the log has now."""
        values = self.control("wait", {"seq": seq, "timeout": timeout}, timeout=timeout + 2.0)
        return int(values["position"])

    def control(self, op: str, args: dict[str, Any] | None = None, *, timeout: float = 30.0) -> dict[str, Any]:
        """Ask the projector for one of its operations. Raises NoResponders where none runs."""
        return self._run(lambda conn: _asked(conn, op, args or {}, timeout))

    def close(self) -> None:
        """Disconnect."""
        with type(self)._guard:
            for key in [key for key, client in self._all.items() if client is self]:
                del self._all[key]
        with self._opening:
            bus, self._bus = self._bus, None
        if bus is not None:
            bus.close()

    def _run(self, work: Callable[[Connection], Coroutine[Any, Any, _T]]) -> _T:
        """Do some work with the connection and wait for it; an interrupt cancels it."""
        with self._opening:
            if self._bus is None:
                self._bus = Bus.open(self.settings, name="sql client")
            bus = self._bus
        return bus.run(work(bus.conn))

    @classmethod
    def _forget(cls) -> None:
        """Begin anew in a forked child, which has neither the threads nor the lock's owner of its parent."""
        cls._all = {}
        cls._guard = threading.Lock()

    async def _ask(self, conn: Connection, question: Ask, payload: bytes, progress: "Progress | None") -> "Result":
        question.at_once = AT_ONCE
        first = encode(question)
        question = decode_ask(payload)  # with the parameters as a projector would see them

        async def remote(end: float) -> "Result":
            from .answer import Answer

            answer = Answer()
            with contextlib.suppress(RequestTimeout):
                answer.add(await call(conn, QUERY, first, timeout=min(AT_ONCE + REPLY_PATIENCE, _left(end))))
                if not answer.later:
                    return answer.result()
            left = _left(end) + GRACE
            stream = call_stream(conn, QUERY, payload, timeout=left, idle_timeout=min(SILENCE, left))
            async with contextlib.aclosing(stream) as parts:
                async for part in parts:
                    answer.add(part)
            return answer.result()

        async def here(end: float) -> "Result":
            from .local import answer_here  # DuckDB, which the projector has and this process may not need

            return await answer_here(conn, self.settings, question, end, progress)

        return await self._either(conn, remote, here, question.timeout)

    async def _snapshot(self, conn: Connection, target: str, form: str, progress: "Progress | None") -> Path:
        async def remote(_end: float) -> Path:
            args = {"target": target, "format": form, "host": socket.gethostname()}
            return Path((await _asked(conn, "snapshot", args, SNAPSHOT_PATIENCE))["path"])

        async def here(end: float) -> Path:
            from .local import opened, turn
            from .snapshot import write_snapshot

            async with turn(end) as held:
                store, _ = await opened(conn, self.settings, held, progress)
                return await in_thread(lambda: write_snapshot(store, target, form))

        return await self._either(conn, remote, here, SNAPSHOT_PATIENCE)

    async def _either(
        self,
        conn: Connection,
        remote: Callable[[float], Awaitable[_T]],
        here: Callable[[float], Awaitable[_T]],
        timeout: float,
    ) -> _T:
        """Ask the projector, or do it here where there is none; both may change while we try.

        Both are told the monotonic time of the end.
        """
        started = time.monotonic()
        end = started + timeout
        pause = 0.01
        holder, held_since = "", started
        while True:
            try:
                return await remote(end)
            except NoResponders:
                pass
            except RequestTimeout as error:
                if time.monotonic() >= end:
                    raise SqlTooLong(
                        f"the projector did not answer within {lasting(timeout)}: see `morphogen status`"
                    ) from error
                continue  # it fell silent: where it was killed, the next try finds nobody, or another one
            except (Disconnected, ServiceError) as error:
                # The connection or the projector went away; a query changes nothing, so it is asked again.
                gone = isinstance(error, Disconnected) or error.kind == "Disconnected"
                if not gone or time.monotonic() >= end:
                    raise
                await asyncio.sleep(pause)
                await conn.wait_connected(max(0.1, end - time.monotonic()))
                pause = min(2 * pause, 0.5)
                continue
            try:
                return await here(end)
            except StoreLocked as error:
                if str(error) != holder:  # others that ask own it in turn: one that does not let go is the trouble
                    holder, held_since = str(error), time.monotonic()
                if time.monotonic() >= min(end, held_since + LOCK_PATIENCE):
                    raise SqlError(
                        f"another process holds the store and does not answer queries: {error}; see `morphogen status`"
                    ) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.25)

    def _status(self, timeout: float) -> dict[str, Any]:
        with self._opening:
            bus = self._bus
        if bus is not None:
            return self.control("status", timeout=timeout)
        with Bus.open(self.settings, name="sql status", start_broker=False) as bus:  # to look is not to start one
            return bus.run(_asked(bus.conn, "status", {}, timeout))


def _left(end: float) -> float:
    return max(0.05, end - time.monotonic())


def _params(params: "Params") -> Any:
    if (params is not None and not isinstance(params, Mapping | Sequence)) or isinstance(params, str | bytes):
        raise SqlError(f"params is a {type(params).__name__}: give a list for ?, or a dict for $name")
    return packed_params(dict(params) if isinstance(params, Mapping) else params)


def _seconds(timeout: float) -> float:
    try:
        seconds = float(timeout)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise SqlError(f"timeout is {timeout!r}: give the seconds that the answer may take, above 0, at most a day")
    return seconds


def _whole(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < 2**63:
        raise SqlError(f"{name} is {value!r}: give an integer from 0 to {2**63 - 1}")
    return number


async def _asked(conn: Connection, op: str, args: dict[str, Any], timeout: float) -> dict[str, Any]:
    reply = decode_reply(await call(conn, CONTROL, encode(Control(op=op, args=args)), timeout=timeout))
    if reply.failure is not None:
        raise KINDS.get(reply.failure.kind, SqlError)(reply.failure.line, reply.failure.detail)
    values: dict[str, Any] = reply.values
    return values


os.register_at_fork(after_in_child=SqlClient._forget)
