"""Ask and answer: one reply, or a stream of chunks with flow control, always with a deadline.

    async def double(payload: bytes) -> bytes: ...            # one reply
    async def rows(payload: bytes) -> AsyncIterator[bytes]: ...   # many: an async generator

    responder = await respond(conn, "morphogen.sql.query", rows)
    async for chunk in call_stream(conn, "morphogen.sql.query", b"SELECT 1", timeout=30): ...

Beside its bytes a message carries headers: `Morphogen-Kind` (chunk, part, beat, end, error) in replies;
`Morphogen-Control` in a request names the subject on which the caller acknowledges chunks, shows that it lives, and
cancels. A handler's error travels back as ServiceError with the name and the text of the original.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from morphogen.schemas.errors import MorphogenError

from .errors import BusError, Disconnected, MessageTooLarge, NoResponders, RequestTimeout, ServiceError, lasting

if TYPE_CHECKING:
    from .connection import Connection

__all__ = ["Responder", "call", "call_stream", "respond"]

Handler: TypeAlias = Callable[[bytes], Awaitable[bytes] | AsyncIterator[bytes]]

PIECE = 512 * 1024  # bytes; a longer chunk travels in pieces
WINDOW = 16  # pieces on their way that the caller has not taken
_ALIVE_EVERY = 2.0  # seconds between a caller's signs of life
_DEAD_AFTER = 10.0  # seconds without one after which the answer is given up
_KIND, _CONTROL, _TIMEOUT, _IDLE, _ERROR = (
    "Morphogen-Kind",
    "Morphogen-Control",
    "Morphogen-Timeout",
    "Morphogen-Idle",
    "Morphogen-Error",
)

_log = logging.getLogger("morphogen.bus")


async def call(conn: "Connection", subject: str, payload: bytes = b"", timeout: float = 5.0) -> bytes:
    """Return the reply to a request.

    Raises NoResponders at once where nobody listens, NotAllowed where the broker's permissions forbid it,
    RequestTimeout after `timeout` seconds, ServiceError with the handler's own words where it failed, Disconnected.
    """
    reply = await conn.request(subject, payload, headers={_TIMEOUT: f"{timeout:.3f}"}, timeout=timeout)
    _raise_error(reply, subject)
    return bytes(reply.data)


async def call_stream(
    conn: "Connection", subject: str, payload: bytes = b"", *, timeout: float = 30.0, idle_timeout: float = 10.0
) -> AsyncGenerator[bytes, None]:
    """Yield the chunks of a reply as the handler made them; closing the generator closes the handler's.

    `timeout` bounds the wait for the first chunk, `idle_timeout` every silence: a handler that is at work is not
    silent. At most 16 pieces of 512 KB are on their way. Raises as `call` does.
    """
    nc = conn.nc
    inbox = nc.new_inbox()
    control = nc.new_inbox()
    arrived: asyncio.Queue[Any] = asyncio.Queue()

    async def receive(message: Any) -> None:
        arrived.put_nowait(message)

    async def lost() -> None:
        arrived.put_nowait(None)

    def refused(place: str, error: Exception) -> bool:
        ours = place in (subject.lower(), inbox.lower(), control.lower())
        if ours:
            arrived.put_nowait(error)
        return ours

    nc.refusals.add(refused)
    subscription = await nc.subscribe(inbox, cb=receive, pending_msgs_limit=0, pending_bytes_limit=0)
    conn.on_reconnect.append(lost)
    alive = asyncio.create_task(_show_life(nc, control), name=f"morphogen request {subject}")
    over = False
    try:
        headers = {_CONTROL: control, _TIMEOUT: f"{timeout:.3f}", _IDLE: f"{idle_timeout:.3f}"}
        await _publish(nc, subject, payload, reply=inbox, headers=headers)
        first: float | None = time.monotonic() + timeout
        parts: list[bytes] = []
        taken = 0
        while True:
            patience = idle_timeout if first is None else max(0.0, min(idle_timeout, first - time.monotonic()))
            try:
                message = await asyncio.wait_for(arrived.get(), patience)
            except TimeoutError:
                limit = idle_timeout if first is None or time.monotonic() < first else timeout
                raise RequestTimeout(
                    f"no answer on {subject} within {lasting(limit)}: try again, or allow more time"
                ) from None
            if isinstance(message, BusError):
                over = True
                raise message
            if message is None or not nc.is_connected:
                over = True
                raise Disconnected(f"the connection was lost while {subject} was answering: ask again")
            kind = (message.headers or {}).get(_KIND)
            if kind is None or kind == "error":
                over = True
                _raise_error(message, subject)
                yield bytes(message.data)  # a responder that knows no streams
                return
            if kind == "beat":
                if first is not None and time.monotonic() >= first:
                    raise RequestTimeout(
                        f"no answer on {subject} within {lasting(timeout)}: try again, or allow more time"
                    )
                continue
            if kind == "end":
                over = True
                return
            first = None
            parts.append(bytes(message.data))
            taken += 1
            if taken % (WINDOW // 2) == 0:
                await _publish(nc, control, str(taken).encode())
            if kind == "chunk":
                chunk, parts = parts[0] if len(parts) == 1 else b"".join(parts), []
                yield chunk
    finally:
        alive.cancel()
        nc.refusals.discard(refused)
        with contextlib.suppress(ValueError):
            conn.on_reconnect.remove(lost)
        with contextlib.suppress(Exception):
            if not over:
                await nc.publish(control, b"cancel")
            await subscription.unsubscribe()


class Responder:
    """A subscription that answers requests, on every client that the connection makes, until it is closed."""

    def __init__(self, conn: "Connection", subject: str, handler: Handler, queue: str, concurrency: int) -> None:
        self._conn = conn
        self._subject = subject
        self._handler = handler
        self._queue = queue
        self._room = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscription: Any = None

    async def _open(self) -> None:
        self._subscription = await self._conn.nc.subscribe(
            self._subject, queue=self._queue, cb=self._accept, pending_msgs_limit=0, pending_bytes_limit=0
        )

    async def close(self) -> None:
        """Stop listening; answers that are under way are broken off with an error to their callers."""
        with contextlib.suppress(ValueError):
            self._conn.on_reconnect.remove(self._open)
        with contextlib.suppress(Exception):
            await self._subscription.unsubscribe()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2)

    async def _accept(self, message: Any) -> None:
        task = asyncio.create_task(self._answer(message, self._conn.nc), name=f"morphogen answer {self._subject}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Any, nc: Any) -> None:
        if not message.reply:
            return
        headers = message.headers or {}
        control = headers.get(_CONTROL)
        caller = _Caller(nc, message.reply, control, _seconds(headers.get(_IDLE), 10.0))
        try:
            await caller.open()
            async with self._room:
                result = self._handler(bytes(message.data))
                if control is None:
                    async with asyncio.timeout(_seconds(headers.get(_TIMEOUT), 60.0)):
                        await caller.reply(b"".join([chunk async for chunk in _chunks(result)]))
                else:
                    await caller.stream(_chunks(result))
        except _Cancelled:
            _log.debug("a request on %s was cancelled", self._subject)
        except asyncio.CancelledError:
            await caller.error("Disconnected", f"{self._subject} was closed while it answered: ask again")
            raise
        except Exception as error:  # noqa: BLE001  it is the caller's to know, and must not end the service
            if not isinstance(error, MorphogenError | TimeoutError):
                _log.debug("the handler of %s failed", self._subject, exc_info=True)
            await caller.error(type(error).__name__, _one_line(error))
        finally:
            await caller.close()


async def respond(
    conn: "Connection", subject: str, handler: Handler, queue: str | None = None, *, concurrency: int = 16
) -> Responder:
    """Answer requests on `subject` with what `handler` returns, or yields; keep the Responder and close it.

    Of responders with the same `queue` one gets each request. `concurrency` handlers run at once, others wait.
    """
    responder = Responder(conn, subject, handler, queue or "", concurrency)
    await responder._open()
    await conn.nc.flush()  # from here on a request finds it
    conn.on_reconnect.append(responder._open)
    return responder


class _Cancelled(Exception):
    """The caller wants no more, or is gone."""


class _Caller:
    """The other end of one request, as its responder sees it."""

    def __init__(self, nc: Any, inbox: str, control: str | None, idle: float) -> None:
        self._nc = nc
        self._inbox = inbox
        self._control = control
        self._idle = idle
        self._subscription: Any = None
        self._sent = 0
        self._taken = 0
        self._seen = time.monotonic()
        self._gone = asyncio.Event()
        self._news = asyncio.Event()

    async def open(self) -> None:
        if self._control is not None:
            self._subscription = await self._nc.subscribe(self._control, cb=self._hear)

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            if self._subscription is not None:
                await self._subscription.unsubscribe()

    async def _hear(self, message: Any) -> None:
        self._seen = time.monotonic()
        if message.data == b"cancel":
            self._gone.set()
        elif message.data:
            self._taken = int(message.data)
        self._news.set()

    async def reply(self, data: bytes) -> None:
        await _publish(self._nc, self._inbox, data)

    async def error(self, kind: str, text: str) -> None:
        with contextlib.suppress(Exception):
            headers = {_KIND: "error", _ERROR: kind}
            await self._nc.publish(self._inbox, text.encode(), headers=headers)

    async def stream(self, chunks: AsyncGenerator[bytes, None]) -> None:
        """Send all chunks, keep the caller from giving up meanwhile, and stop as soon as it does not want more."""
        sending = asyncio.create_task(self._send(chunks))
        gone = asyncio.create_task(self._gone.wait())
        try:
            while True:
                beat = min(self._idle / 3, _ALIVE_EVERY)
                await asyncio.wait({sending, gone}, timeout=beat, return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
                    return
                if gone.done() or time.monotonic() - self._seen > _DEAD_AFTER or not self._nc.is_connected:
                    raise _Cancelled
                await _publish(self._nc, self._inbox, b"", headers={_KIND: "beat"})
        finally:
            gone.cancel()
            if not sending.done():
                sending.cancel()
                await asyncio.wait({sending})
            await chunks.aclose()

    async def _send(self, chunks: AsyncGenerator[bytes, None]) -> None:
        async for chunk in chunks:
            for start in range(0, max(1, len(chunk)), PIECE):
                while self._sent - self._taken >= WINDOW:
                    self._news.clear()
                    await self._news.wait()
                kind = "chunk" if start + PIECE >= len(chunk) else "part"
                piece = chunk if len(chunk) <= PIECE else chunk[start : start + PIECE]
                await _publish(self._nc, self._inbox, piece, headers={_KIND: kind})
                self._sent += 1
        await _publish(self._nc, self._inbox, b"", headers={_KIND: "end"})


async def _chunks(result: Any) -> AsyncGenerator[bytes, None]:
    """Turn whatever a handler returned into chunks, and close its generator when the reader stops."""
    if isinstance(result, Awaitable):
        result = await result
    if isinstance(result, bytes | bytearray | memoryview):
        yield bytes(result)
        return
    try:
        async for chunk in result:
            yield chunk
    finally:
        if hasattr(result, "aclose"):
            await result.aclose()


async def _show_life(nc: Any, control: str) -> None:
    while True:
        await asyncio.sleep(_ALIVE_EVERY)
        with contextlib.suppress(Exception):
            await nc.publish(control, b"")


async def _publish(
    nc: Any, subject: str, data: bytes, *, reply: str = "", headers: dict[str, str] | None = None
) -> None:
    """Publish on this very client. Raises Disconnected where it has ended."""
    if len(data) > nc.max_payload:
        raise MessageTooLarge(f"a message of {len(data)} bytes is larger than the broker takes: send it as a stream")
    try:
        await nc.publish(subject, data, reply=reply, headers=headers)
    except Exception as error:
        raise Disconnected(f"cannot send to {subject}: {_one_line(error)}") from error


def _raise_error(message: Any, subject: str) -> None:
    headers = message.headers or {}
    if headers.get("Status") == "503":
        raise NoResponders(f"nobody answers on {subject}; is what serves it running?")
    if _ERROR in headers:
        raise ServiceError(headers[_ERROR], bytes(message.data).decode("utf-8", "replace"))


def _seconds(text: str | None, otherwise: float) -> float:
    try:
        return float(text) if text else otherwise
    except ValueError:
        return otherwise


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
