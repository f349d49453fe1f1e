"""Where messages of other engines come from: a ZMQ publisher with its replay socket, or a NATS subject.

A source hands over what it receives as it is: (number, payload), the number None where the dialect keeps it inside.
Malformed multiparts are counted, never raised.
"""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Protocol, Self

from .errors import NotListening
from .wire import line_of
from .zmq_source import ZmqSource

if TYPE_CHECKING:
    from .sequence import Message

_PORTS = 65535
_log = logging.getLogger("morphogen.kv")
_WAITING = 100_000  # messages that may wait to be taken
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
    for one in filter(None, (endpoint, replay)):
        _check(one)
    return ZmqSource(endpoint, topic=topic, replay=replay)


def is_nats(endpoint: str) -> bool:
    """Tell whether an endpoint is a broker of NATS."""
    return endpoint.startswith(("nats://", "tls://"))


def replay_of(endpoint: str) -> str | None:
    """Return where vLLM's publishers answer replays unless they are told otherwise: the port after their own."""
    head, _, port = endpoint.rpartition(":")
    following = _port(port) + 1 if endpoint.startswith("tcp://") else 1
    return f"{head}:{following}" if 1 < following <= _PORTS else None


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
