"""A ZMQ publisher and its replay socket as a source.

libzmq makes a lost connection again by itself, but gives one up without a word where the other end sends what it refuses:
a message that is too large, or the greeting of a socket of another kind. Here such a one is opened anew.
"""

import asyncio
import contextlib
import itertools
import logging
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from .errors import NotListening
from .replay import MOST_BYTES, Answer, gathered
from .wire import LARGEST

if TYPE_CHECKING:
    from .sequence import Message

_END = b"\xff" * 8  # of a replay: -1, as a signed number
_SILENCE = 2.0  # seconds without a further message after which a replay is over
_WAITING = 100_000  # messages that may wait to be taken
_AT_ONCE = 256  # messages taken before the loop is told
_LOOK = 100  # milliseconds between looks at whether it is over
_FULL = 0.01  # seconds to wait where too many wait
_AGAIN = 0.2  # seconds until a connection that was given up is opened anew

_log = logging.getLogger("morphogen.kv")
_lines = itertools.count()


class ZmqSource:
    """A publisher's PUB socket (topic, number of 8 bytes big-endian, payload), and its ROUTER socket for replays.

    A thread of its own takes what comes, so that a busy loop loses nothing; past 100,000 messages that wait it is the
    publisher's queue that fills up.
    """

    def __init__(self, endpoint: str, *, topic: str = "", replay: str | None = None) -> None:
        self._endpoint, self._topic, self._replay = endpoint, topic, replay
        self.malformed = 0
        self._context: Any = None
        self._waiting: deque[tuple[int | None, bytes]] = deque()
        self._news = asyncio.Event()
        self._over = threading.Event()
        self._asking = threading.Lock()  # held while a thread asks the replay socket
        self._thread: threading.Thread | None = None
        self._heard, self._asked = _Said(), _Said()

    async def __aenter__(self) -> Self:
        try:
            import zmq
        except ImportError:
            raise NotListening("listening to engines needs pyzmq: pip install 'morphogen[kv]'") from None
        self._zmq = zmq
        self._context = zmq.Context()
        try:
            line = self._subscribed()
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise NotListening(f"{self._endpoint} cannot be listened to: {error}") from error
        self._thread = threading.Thread(
            target=self._listen,
            args=(line, asyncio.get_running_loop()),
            name=f"morphogen kv {self._endpoint}",
            daemon=True,
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
        if (endpoint := self._replay) is None:
            return None
        return await asyncio.to_thread(lambda: gathered(lambda number: self._ask(endpoint, number), start))

    def _close(self) -> None:
        """End the context once no thread uses a socket of it any more."""
        if self._thread is not None:
            self._thread.join()
        with self._asking:
            self._context.destroy(linger=0)

    def _listen(self, line: "_Line | None", loop: asyncio.AbstractEventLoop) -> None:
        """Take messages until it is over, over a new connection where one was given up; runs in the thread."""
        while not self._over.is_set():
            try:
                line = line or self._subscribed()
                self._take_all(line, loop)
                why = _why(line)
            except self._zmq.ZMQError as error:
                why = f"cannot be listened to, and is tried again: {error}"
            except RuntimeError:  # the loop is closed
                return
            finally:
                if line is not None:
                    line.close()
            line = None
            if not self._over.wait(_AGAIN):
                self._heard.say(f"{self._endpoint} {why}")

    def _take_all(self, line: "_Line", loop: asyncio.AbstractEventLoop) -> None:
        """Take messages until it is over or the connection was given up."""
        while not self._over.is_set():
            given_up = line.given_up()
            if len(self._waiting) >= _WAITING:
                self._over.wait(_FULL)
            elif line.socket.poll(_LOOK):
                with contextlib.suppress(self._zmq.Again):
                    for _ in range(_AT_ONCE):
                        self._keep(line.socket.recv_multipart(self._zmq.NOBLOCK))
                self._heard.forget()
                loop.call_soon_threadsafe(self._news.set)
            elif given_up and line.given_up():
                return

    def _keep(self, parts: list[bytes]) -> None:
        if len(parts) == 3 and len(parts[1]) == 8:
            self._waiting.append((int.from_bytes(parts[1], "big"), parts[2]))
        elif len(parts) == 4 and len(parts[2]) == 8:  # topic, publisher, number, frame
            self._waiting.append((int.from_bytes(parts[2], "big"), parts[3]))
        else:
            self.malformed += 1

    def _ask(self, endpoint: str, start: int) -> Answer:
        """Return what comes from a number on."""
        with self._asking:
            if self._over.is_set():
                return Answer()
            try:
                line = self._line(self._zmq.DEALER, endpoint)
                try:
                    line.socket.send_multipart([b"", start.to_bytes(8, "big")], self._zmq.NOBLOCK)
                    answer = self._answer(line)
                finally:
                    line.close()
            except self._zmq.ZMQError as error:
                self._asked.say(f"{endpoint} cannot be asked: {error}")
                return Answer()
        if answer.found or answer.end != "silent":
            self._asked.forget()
        else:
            self._asked.say(f"{endpoint} does not answer: nothing can be had again from there")
        return answer

    def _answer(self, line: "_Line") -> Answer:
        """Return what comes until the end mark, a silence, or the end of the connection."""
        found: dict[int, bytes] = {}
        size, silent = 0, 0.0
        while size < MOST_BYTES and silent < _SILENCE and not self._over.is_set():
            given_up = line.given_up()
            if not line.socket.poll(_LOOK):
                if given_up and line.given_up():
                    return Answer(found, "refused" if line.greeted else "silent")
                silent += _LOOK / 1000
                continue
            silent = 0.0
            parts = line.socket.recv_multipart()  # an empty one, the number, the payload
            if _END in parts[-2:]:
                return Answer(found, "whole")
            if len(parts) < 2 or len(parts[-2]) != 8:
                self.malformed += 1
                continue
            found[int.from_bytes(parts[-2], "big")] = parts[-1]
            size += len(parts[-1])
        return Answer(found)

    def _subscribed(self) -> "_Line":
        return self._line(self._zmq.SUB, self._endpoint, {self._zmq.SUBSCRIBE: self._topic.encode()})

    def _line(self, kind: int, endpoint: str, options: dict[int, bytes] | None = None) -> "_Line":
        return _Line(self._zmq, self._context, kind, endpoint, options or {})


class _Line:
    """A socket, and what libzmq tells of its connection."""

    def __init__(self, zmq: Any, context: Any, kind: int, endpoint: str, options: dict[int, bytes]) -> None:
        self._zmq = zmq
        self.greeted = False  # both ends of the last connection were what the other expected
        self._last = 0
        self.socket = context.socket(kind)
        self._monitor: Any = None
        try:
            for option, value in {
                zmq.LINGER: 0, zmq.RCVHWM: _WAITING, zmq.MAXMSGSIZE: LARGEST, zmq.RECONNECT_IVL_MAX: 2000,
                zmq.TCP_KEEPALIVE: 1, **options,
            }.items():  # fmt: skip
                self.socket.setsockopt(option, value)
            told = zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
            self._monitor = self.socket.get_monitor_socket(
                told | zmq.EVENT_CONNECT_RETRIED, f"inproc://line-{next(_lines)}"
            )
            self.socket.connect(endpoint)
        except BaseException:
            self.close()
            raise

    def given_up(self) -> bool:
        """Tell whether the connection was lost and libzmq has not said since that it makes it again.

        It says so at once; only where a later look finds the same, with nothing received in between, was it given up.
        """
        zmq = self._zmq
        with contextlib.suppress(zmq.Again):
            while True:
                head = self._monitor.recv_multipart(zmq.NOBLOCK)[0]
                self._last = int.from_bytes(head[:2], sys.byteorder)
                if self._last in (zmq.EVENT_CONNECTED, zmq.EVENT_HANDSHAKE_SUCCEEDED):
                    self.greeted = self._last == zmq.EVENT_HANDSHAKE_SUCCEEDED
        return bool(self._last == zmq.EVENT_DISCONNECTED)

    def close(self) -> None:
        """Close both sockets."""
        if self._monitor is not None:
            self.socket.disable_monitor()
            self._monitor.close(linger=0)
        self.socket.close(linger=0)


def _why(line: _Line) -> str:
    """Say of an endpoint why its connection was given up."""
    if line.greeted:
        return f"sent what ZMQ refuses, a message of more than {LARGEST:,} bytes: it is listened to anew"
    return "is no publisher of ZMQ: it is tried again until it is one"


class _Said:
    """Says a line once, until another one or the end of what it told of."""

    def __init__(self) -> None:
        self._line = ""

    def say(self, line: str) -> None:
        """Say a line unless it was the last one."""
        if line != self._line:
            _log.warning("%s", line)
        self._line = line

    def forget(self) -> None:
        """Note that it is over, so that the same line is news again."""
        self._line = ""
