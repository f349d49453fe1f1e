"""The bus for programs that are not asynchronous: a thread with a loop of its own, and plain calls.

    with Bus.open() as bus:
        for seen in bus.events(family="metrics"):
            print(seen.id, seen.event)

Every call may come from any thread. It is a thin face: what a call does stands in the module of its name.
"""

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import msgspec

from morphogen.schemas import Event, Frame, Record, Unknown, decode_event

from . import blobs, requests
from .bodies import body_of, reference
from .commands import dead
from .commands import issue as commands
from .connection import Connection, PubAck, connect
from .emit import emit
from .errors import BusError, Disconnected, ForkedBus, RequestTimeout
from .frames import frames
from .loop import new_loop
from .reader import NAMES, Message, read
from .settings import Settings
from .streams import StreamInfo, ensure_streams, stream_info

__all__ = ["Bus", "Seen", "Serving"]

_T = TypeVar("_T")
_CLOSE = 5.0  # seconds
_END = object()


class Seen(NamedTuple):
    """An event as it was read: the frame that carried it, its place there, its record, and itself.

    `record` has the body also where the frame refers to a blob. `event` is an instance of its class, or Unknown where
    this process cannot read it as one.
    """

    frame: Frame
    idx: int
    record: Record
    event: Event | Unknown

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands: (stream sequence, index in its frame)."""
        return self.frame.seq, self.idx

    @property
    def id(self) -> str:
        """The event's id, the same for ever."""
        return self.frame.event_id(self.idx)


class Bus:
    """An open connection with a thread of its own. Make it with `Bus.open`, close it, or use it in a `with`."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = new_loop()
        self._thread = threading.Thread(target=_run_loop, args=(self._loop,), name="morphogen bus", daemon=True)
        self._conn: Connection | None = None
        self._closed = False
        self._closing = threading.Lock()
        self._running: set[asyncio.Task[Any]] = set()
        self.blobs = Blobs(self)
        self.dead = DeadLetters(self)

    @classmethod
    def open(
        cls,
        settings: Settings | None = None,
        *,
        url: str | None = None,
        creds: str | Path | None = None,
        home: str | Path | None = None,
        name: str = "bus",
        start_broker: bool = True,
        deadline: float = 5.0,
    ) -> "Bus":
        """Connect as `settings` (else the environment, and the arguments over it) say, and make sure of the streams.

        Fails within about `deadline` seconds with a BusError that says what to do.
        """
        chosen = settings or Settings.from_environ(url=url, creds=creds, home=home)
        bus = cls()
        bus._thread.start()
        try:
            bus._conn = bus.run(connect(chosen, name=name, start_broker=start_broker, deadline=deadline))
            bus.run(ensure_streams(bus._conn))
        except BaseException:
            bus.close()
            raise
        return bus

    @property
    def conn(self) -> Connection:
        """The connection, for coroutines given to `run`. Raises ForkedBus, or Disconnected when closed."""
        self._check()
        if self._conn is None:
            raise Disconnected("this bus was never opened: use Bus.open()")
        return self._conn

    def run(self, coroutine: Coroutine[Any, Any, _T], timeout: float | None = None) -> _T:
        """Run a coroutine on the bus's own loop and return its result. Raises RequestTimeout after `timeout` seconds."""
        try:
            self._check()
        except BusError:
            coroutine.close()
            raise
        future = self.start(coroutine)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            raise Disconnected("the bus was closed while it was in use") from None
        except TimeoutError as error:
            if future.done():
                raise
            future.cancel()
            raise RequestTimeout(f"not done within {timeout:g} s") from error
        except BaseException:
            future.cancel()
            raise

    def start(self, coroutine: Coroutine[Any, Any, _T]) -> "concurrent.futures.Future[_T]":
        """Run a coroutine on the bus's own loop in the background; closing the bus cancels it."""
        return asyncio.run_coroutine_threadsafe(self._tracked(coroutine), self._loop)

    def read(
        self,
        *,
        after: int = 0,
        upto: int | None = None,
        run: str | None = None,
        family: str | Iterable[str] | None = None,
        since_ns: int | None = None,
        follow: bool = False,
        stream: str = "log",
    ) -> Iterator[list[Message]]:
        """Yield lists of messages of a stream; see reader.read."""
        return self._iterate(
            read(
                self.conn,
                after=after,
                upto=upto,
                run=run,
                family=family,
                since_ns=since_ns,
                follow=follow,
                stream=stream,
            )
        )

    def events(
        self,
        *,
        after: int = 0,
        upto: int | None = None,
        run: str | None = None,
        family: str | Iterable[str] | None = None,
        since_ns: int | None = None,
        follow: bool = False,
        stream: str = "log",
    ) -> Iterator[Seen]:
        """Yield events one by one, decoded, with the bodies that lie in blobs.

        A message that is no frame is told to the program's log and passed over. An event whose blob is gone is told,
        and is Unknown. Raises what `read` raises.
        """
        batches = self.read(
            after=after, upto=upto, run=run, family=family, since_ns=since_ns, follow=follow, stream=stream
        )
        return self._opened(batches, follow)

    def past(
        self,
        *,
        after: int = 0,
        upto: int | None = None,
        run: str | None = None,
        family: str | Iterable[str] | None = None,
        follow: bool = False,
    ) -> Iterator[Seen]:
        """Yield the events of the archive and of the log behind it, as `events` does of the log alone; see past.past."""
        from .past import past

        batches = past(self.conn, self.conn.settings, after=after, upto=upto, run=run, family=family, follow=follow)
        return self._opened(self._iterate(batches), follow)

    def send(self, target: str, name: str, args: Mapping[str, Any] | None = None, **options: Any) -> str:
        """Issue a command and return its id; options as of commands.send."""
        return self.run(commands.send(self.conn, target, name, args, **options))

    def serve(self, target: str, handlers: Mapping[str, commands.Handler], **options: Any) -> "Serving":
        """Do the commands for `target` in the background, until the result is stopped; options as of Worker."""
        return Serving(self, commands.Worker(self.conn, target, handlers, **options))

    def emit(
        self, event: Event, *, run: str | None = None, cause: str | None = None, label: str | None = "0-0", msg_id: str
    ) -> PubAck:
        """Write one event straight into the log, of a run or of none; see emit.emit."""
        return self.run(emit(self.conn, event, run=run or "", cause=cause, label=label, msg_id=msg_id))

    def request(self, subject: str, payload: bytes = b"", timeout: float = 5.0) -> bytes:
        """Return the reply to a request; see requests.call."""
        return self.run(requests.call(self.conn, subject, payload, timeout))

    def request_stream(
        self, subject: str, payload: bytes = b"", *, timeout: float = 30.0, idle_timeout: float = 10.0
    ) -> Iterator[bytes]:
        """Yield the chunks of a reply; see requests.call_stream."""
        return self._iterate(
            requests.call_stream(self.conn, subject, payload, timeout=timeout, idle_timeout=idle_timeout)
        )

    def stream_info(self, stream: str = "log") -> StreamInfo:
        """Return what a stream holds: its epoch, its first and last sequence, its size."""
        return self.run(stream_info(self.conn, NAMES.get(stream, stream)))

    def close(self) -> None:
        """End it: what waits gets Disconnected. Takes at most about five seconds, and may be called twice."""
        with self._closing:
            if self._closed or os.getpid() != self._pid:
                return
            self._closed = True
        if self._thread.is_alive():
            ending = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
            with contextlib.suppress(Exception):
                ending.result(_CLOSE)
            self._loop.call_soon_threadsafe(self._loop.stop)
            if threading.current_thread() is not self._thread:
                self._thread.join(1.0)

    async def _tracked(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            return await coroutine
        finally:
            self._running.discard(task)

    async def _end(self) -> None:
        running = set(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=_CLOSE / 2)  # workers hand back what they hold
        if self._conn is not None:
            await self._conn.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=_CLOSE / 5)

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedBus(f"this bus was opened by process {self._pid}: open another one after the fork")
        if self._closed:
            raise Disconnected("this bus is closed: open another one")
        if threading.current_thread() is self._thread:
            raise BusError("a bus cannot wait for itself: in its own coroutines, await the functions of morphogen.bus")

    def _iterate(self, source: AsyncGenerator[_T, None]) -> Iterator[_T]:
        try:
            while True:
                item = self.run(_following(source))
                if item is _END:
                    return
                yield item  # type: ignore[misc]
        finally:
            with contextlib.suppress(BusError):
                self.run(_closed(source), timeout=_CLOSE)

    def _opened(self, batches: Iterator[list[Message]], follow: bool) -> Iterator[Seen]:
        """Yield the events of messages one by one, decoded, and close `batches` at the end."""
        with contextlib.closing(batches):  # type: ignore[type-var]
            for batch in batches:
                for frame in frames(batch):
                    for idx, record in enumerate(frame.records):
                        yield self._seen(frame, idx, record, follow)

    def _seen(self, frame: Frame, idx: int, record: Record, follow: bool) -> Seen:
        if reference(record.body) is None:
            return Seen(frame, idx, record, decode_event(record.type, record.version, record.body))
        body = self.run(body_of(self.conn, frame, record, follow=follow))
        if body is None:
            gone = Unknown(record.type, record.version, record.body, "its body lies in a blob that is gone")
            return Seen(frame, idx, record, gone)
        # A record of its own: the frame is kept by whoever reads the next ones, and may not grow by every body in it.
        record = msgspec.structs.replace(record, body=msgspec.Raw(body))
        return Seen(frame, idx, record, decode_event(record.type, record.version, record.body))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Bus {'closed' if self._closed else 'open'} of process {self._pid}>"


class Blobs:
    """`bus.blobs`: large things by the hash of their bytes; see the module blobs."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def put(self, source: bytes | bytearray | memoryview | str | Path, progress: blobs.Progress | None = None) -> str:
        """Store bytes, or the file at a path, and return the sha256."""
        if isinstance(source, str | Path):
            return self._bus.run(blobs.put_file(self._bus.conn, source, progress)).sha256
        return self._bus.run(blobs.put_bytes(self._bus.conn, source))

    def get(self, sha256: str) -> bytes:
        """Return a blob, verified."""
        return self._bus.run(blobs.get_bytes(self._bus.conn, sha256))

    def get_file(self, sha256: str, path: str | Path, progress: blobs.Progress | None = None) -> int:
        """Write a blob to a file, whole and verified or not at all; return its size in bytes."""
        return self._bus.run(blobs.get_file(self._bus.conn, sha256, path, progress))

    def exists(self, sha256: str) -> bool:
        """Tell whether a whole blob of that hash is stored."""
        return self._bus.run(blobs.exists(self._bus.conn, sha256))

    def delete(self, sha256: str) -> bool:
        """Take a blob away; return whether there was one."""
        return self._bus.run(blobs.delete(self._bus.conn, sha256))


class DeadLetters:
    """`bus.dead`: commands that nobody could do; see the module dead."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def list(self, run: str | None = None) -> "list[dead.Letter]":
        """Return all dead letters, oldest first."""
        return self._bus.run(dead.letters(self._bus.conn, run=run))

    def show(self, key: int | str) -> dead.Letter:
        """Return one letter, by place or command id."""
        return self._bus.run(dead.show(self._bus.conn, key))

    def retry(self, key: int | str, by: str | None = None) -> str:
        """Issue the command anew and return its new id."""
        return self._bus.run(dead.retry(self._bus.conn, key, by=by))

    def drop(self, key: int | str, by: str | None = None) -> None:
        """Take a letter away for good."""
        self._bus.run(dead.drop(self._bus.conn, key, by=by))


class Serving:
    """A worker in the background of a bus: `wait` for its end, `stop` it, or use it in a `with`."""

    def __init__(self, bus: Bus, worker: commands.Worker) -> None:
        self._bus = bus
        self._worker = worker
        self._future = bus.start(worker.run())

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the worker ends, or for `timeout` seconds; return whether it has ended. Raises what ended it."""
        try:
            self._future.result(timeout)
        except concurrent.futures.CancelledError:
            return True
        except TimeoutError:
            if not self._future.done():
                return False
            raise
        return True

    def stop(self, timeout: float = 5.0) -> None:
        """Take no further command, give those in hand two seconds, and return."""
        with contextlib.suppress(RuntimeError):
            self._bus._loop.call_soon_threadsafe(self._worker.stop)
            self.wait(timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


async def _following(source: AsyncGenerator[_T, None]) -> _T | object:
    return await anext(source, _END)


async def _closed(source: AsyncGenerator[Any, None]) -> None:
    while getattr(
        source, "ag_running", False
    ):  # an interrupt left its last step to be cancelled, which takes a turn of the loop
        await asyncio.sleep(0.01)
    await source.aclose()


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        with contextlib.suppress(Exception):
            loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
