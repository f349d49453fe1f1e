"""Where messages of other engines come from: a ZMQ publisher with its replay socket, or a NATS subject.

A source hands over what it receives as it is: (number, payload), the number None where the dialect keeps it inside.
Malformed multiparts are counted, never raised.
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, Self

from .errors import NotListening
from .wire import LARGEST, line_of

if TYPE_CHECKING:
    from .sequence import Message

_PORTS = 65535
_log = logging.getLogger("morphogen.kv")
_END = b"\xff" * 8  # of a replay: -1, as a signed number
_SILENCE = 2.0  # seconds without a further message after which a replay is over
_REPLAY_BYTES = 512 << 20
_WAITING = 100_000  # messages that may wait to be taken
_AT_ONCE = 256  # messages taken before the loop is told
_LOOK = 100  # milliseconds between looks at whether it is over
_FULL = 0.01  # seconds to wait where too many wait
_FIRST = 5.0  # seconds for the first connection; one that is lost later is waited for without an end


class Source(Protocol):
    """An open subscription, to be used in an `async with`."""

    malformed: int

    async def receive(self, timeout: float | None) -> "tuple[int | None, bytes] | None":
        """Return the next message; None after `timeout` seconds, or at once for 0 where none is there."""

    async def replay(self, start: int) -> "list[Message] | None":
        """Return what the publisher has kept from number `start` on, or None where it cannot be asked."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *error: object) -> None: ...


class ZmqSource:
    """A publisher's PUB socket (topic, number of 8 bytes big-endian, payload), and its ROUTER socket for replays.

    A thread of its own takes what comes, so that a busy loop loses nothing; past 100,000 messages that wait it is the
    publisher's queue that fills up.
    """

    def __init__(self, endpoint: str, *, topic: str = "", replay: str | None = None) -> None:
        self._endpoint, self._topic, self._replay = endpoint, topic, replay
        for one in filter(None, (endpoint, replay)):
            _check(one)
        self.malformed = 0
        self._context: Any = None
        self._waiting: deque[tuple[int | None, bytes]] = deque()
        self._news = asyncio.Event()
        self._over = threading.Event()
        self._asking = threading.Lock()  # held while a thread asks the replay socket
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Self:
        try:
            import zmq
        except ImportError:
            raise NotListening("listening to engines needs pyzmq: pip install 'morphogen[kv]'") from None
        self._zmq = zmq
        self._context = zmq.Context()
        try:
            socket = self._open(zmq.SUB, self._endpoint)
            socket.setsockopt(zmq.SUBSCRIBE, self._topic.encode())
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise NotListening(f"{self._endpoint} cannot be listened to: {error}") from error
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._take_all, args=(socket, loop), name=f"morphogen kv {self._endpoint}", daemon=True
        )
        self._thread.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._over.set()
        await asyncio.to_thread(self._close)

    async def receive(self, timeout: float | None) -> "tuple[int | None, bytes] | None":
        """Return the next message that has the form; None after `timeout` seconds."""
        if not self._waiting and timeout != 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    while not self._waiting:
                        self._news.clear()
                        if not self._waiting:  # nothing came before it was cleared
                            await self._news.wait()
        return self._waiting.popleft() if self._waiting else None

    async def replay(self, start: int) -> "list[Message] | None":
        """Ask the replay socket; what comes until its end mark, or until it falls silent."""
        return None if self._replay is None else await asyncio.to_thread(self._replayed, self._replay, start)

    def _close(self) -> None:
        """End the context once no thread uses a socket of it any more."""
        if self._thread is not None:
            self._thread.join()
        with self._asking:
            self._context.destroy(linger=0)

    def _take_all(self, socket: Any, loop: asyncio.AbstractEventLoop) -> None:
        """Take messages from the socket until it is over; runs in the thread."""
        again = self._zmq.Again
        try:
            while not self._over.is_set():
                if len(self._waiting) >= _WAITING:
                    self._over.wait(_FULL)
                elif socket.poll(_LOOK):
                    with contextlib.suppress(again):
                        for _ in range(_AT_ONCE):
                            self._keep(socket.recv_multipart(self._zmq.NOBLOCK))
                    loop.call_soon_threadsafe(self._news.set)
        except (self._zmq.ZMQError, RuntimeError) as error:  # RuntimeError: the loop is closed
            _log.debug("%s is listened to no more: %s", self._endpoint, error)
        finally:
            socket.close(linger=0)

    def _keep(self, parts: list[bytes]) -> None:
        if len(parts) == 3 and len(parts[1]) == 8:
            self._waiting.append((int.from_bytes(parts[1], "big"), parts[2]))
        elif len(parts) == 4 and len(parts[2]) == 8:  # topic, publisher, number, frame
            self._waiting.append((int.from_bytes(parts[2], "big"), parts[3]))
        else:
            self.malformed += 1

    def _replayed(self, endpoint: str, start: int) -> "list[Message] | None":
        """Ask, and again from where the answer has a hole: a publisher leaves out what its queue has no room for."""
        found, whole = self._asked(endpoint, start)
        while (before := _before_a_hole(found, whole)) is not None and sum(map(len, found.values())) < _REPLAY_BYTES:
            came, whole = self._asked(endpoint, before)
            if came.get(before) != found[before] or came.keys() <= found.keys():
                break  # another life of the publisher, or it kept no more
            found |= came
        return list(found.items()) if found or whole else None

    def _asked(self, endpoint: str, start: int) -> tuple[dict[int, bytes], bool]:
        """Return what comes from a number on, and whether its end mark came."""
        with self._asking:
            if self._over.is_set():
                return {}, False
            try:
                socket = self._open(self._zmq.DEALER, endpoint)
                try:
                    socket.send_multipart([b"", start.to_bytes(8, "big")])
                    found, whole = self._answers(socket)
                finally:
                    socket.close(linger=0)
            except self._zmq.ZMQError as error:
                _log.warning("%s cannot be asked: %s", endpoint, error)
                return {}, False
        if not found and not whole:
            _log.warning("%s does not answer: nothing can be had again from there", endpoint)
        return found, whole

    def _answers(self, socket: Any) -> tuple[dict[int, bytes], bool]:
        """Return what comes until the end mark or a silence, and whether the mark came."""
        found: dict[int, bytes] = {}
        size, silent = 0, 0.0
        while size < _REPLAY_BYTES and silent < _SILENCE and not self._over.is_set():
            if not socket.poll(_LOOK):
                silent += _LOOK / 1000
                continue
            silent = 0.0
            parts = socket.recv_multipart()  # an empty one, the number, the payload
            if _END in parts[-2:]:
                return found, True
            if len(parts) < 2 or len(parts[-2]) != 8:
                self.malformed += 1
                continue
            found[int.from_bytes(parts[-2], "big")] = parts[-1]
            size += len(parts[-1])
        return found, False

    def _open(self, kind: int, endpoint: str) -> Any:
        zmq = self._zmq
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, _WAITING)
        socket.setsockopt(zmq.MAXMSGSIZE, LARGEST)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.connect(endpoint)
        return socket


class NatsSource:
    """A NATS subject, as Dynamo's event plane uses it; it keeps nothing to be asked for again."""

    def __init__(self, url: str, *, subject: str) -> None:
        if not subject:
            raise NotListening(
                f"{url}: name the subject with --topic, such as 'namespace.dynamo.component.*.kv-events'"
            )
        self._url, self._subject = url, subject
        self._why = ""  # the last failure to connect
        self.malformed = 0
        self._client: Any = None
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(_WAITING)

    async def __aenter__(self) -> Self:
        from nats.aio.client import Client

        self._client = Client()
        try:
            async with asyncio.timeout(_FIRST):
                await self._client.connect(
                    self._url, error_cb=self._failed, connect_timeout=5, allow_reconnect=True, max_reconnect_attempts=-1
                )
                await self._client.subscribe(self._subject, cb=self._heard)
                await self._client.flush(5)  # from here on everything is heard
        except Exception as error:
            await self.__aexit__()
            why = self._why if isinstance(error, TimeoutError) and self._why else line_of(error)
            raise NotListening(f"{self._url} cannot be listened to: {why}") from error
        return self

    async def __aexit__(self, *error: object) -> None:
        with contextlib.suppress(Exception):
            await self._client.close()

    async def _failed(self, error: Exception) -> None:
        self._why = line_of(error)
        _log.debug("%s: %s", self._url, self._why)

    async def receive(self, timeout: float | None) -> "tuple[int | None, bytes] | None":
        """Return the next message; its number is inside."""
        if timeout == 0:
            return None if self._waiting.empty() else (None, self._waiting.get_nowait())
        try:
            return None, await asyncio.wait_for(self._waiting.get(), timeout)
        except TimeoutError:
            return None

    async def replay(self, start: int) -> "list[Message] | None":
        """Return None: NATS core keeps nothing."""
        return None

    async def _heard(self, message: Any) -> None:
        await self._waiting.put(bytes(message.data))


def source_of(endpoint: str, *, topic: str = "", replay: str | None = None) -> Source:
    """Return a source for an endpoint: tcp:// or ipc:// of a ZMQ publisher, or nats://. Raises NotListening."""
    if is_nats(endpoint):
        return NatsSource(endpoint, subject=topic)
    return ZmqSource(endpoint, topic=topic, replay=replay)


def is_nats(endpoint: str) -> bool:
    """Tell whether an endpoint is a broker of NATS."""
    return endpoint.startswith(("nats://", "tls://"))


def replay_of(endpoint: str) -> str | None:
    """Return where vLLM's publishers answer replays unless they are told otherwise: the port after their own."""
    head, _, port = endpoint.rpartition(":")
    following = _port(port) + 1 if endpoint.startswith("tcp://") else 1
    return f"{head}:{following}" if 1 < following <= _PORTS else None


def _before_a_hole(found: Iterable[int], whole: bool) -> int | None:
    """Return the first number whose follower is missing; the last one misses its own where the answer is not whole."""
    numbers = sorted(found)
    before = [one for one, following in pairwise(numbers) if following > one + 1]
    return next(iter(before if whole else [*before, *numbers[-1:]]), None)


def _check(endpoint: str) -> None:
    scheme, _, rest = endpoint.partition("://")
    if scheme not in ("tcp", "ipc") or not rest or rest.startswith("*"):
        raise NotListening(
            f"{endpoint[:80]!r} is no endpoint to connect to: write tcp://127.0.0.1:5557, ipc:///path or nats://host:4222"
        )
    if scheme == "tcp" and not _port(rest.rpartition(":")[2]):
        raise NotListening(f"{endpoint[:80]!r} has no port from 1 to {_PORTS}: write tcp://127.0.0.1:5557")


def _port(text: str) -> int:
    """Return a port from 1 to 65535, or 0 for a text that is none."""
    port = int(text) if len(text) <= len(str(_PORTS)) and text.isascii() and text.isdecimal() else 0
    return port if port <= _PORTS else 0
