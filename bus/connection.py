"""A connection that stays: it notices a loss or a hang, finds the broker again, and connects anew, for ever."""

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .aside import in_thread
from .broker import Endpoint
from .broker import lifecycle as broker
from .errors import (
    BusError,
    Disconnected,
    JetStreamApiError,
    NoBroker,
    NoResponders,
    PublishTimeout,
    RequestTimeout,
    lasting,
)
from .link import Link, open_link, shown
from .message import Message
from .nats_py import Pieces
from .settings import Settings
from .watch import Watch

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0
_FIRST_PATIENCE = 2.0  # seconds that each address has to answer
_LONGEST_PATIENCE = 5.0  # a broker that is back waits as long for an address that says nothing
_CALLBACK_PATIENCE = 30.0

_log = logging.getLogger("morphogen.bus")
_dice = random.Random()  # noqa: S311  our own: the global one belongs to the training job, whose seed must hold


@dataclass(frozen=True, slots=True)
class PubAck:
    """The log has it: at which sequence of which stream, and whether it was there already."""

    seq: int
    duplicate: bool
    stream: str


class Connection:
    """Talk to the broker. Make one with `connect`, use it from the loop that made it, and `close` it.

    `on_reconnect` holds async callables that run after every new client; subscriptions live on `nc`, which changes
    then, so whoever subscribes appends what subscribes again. `generation` counts the clients, from 1.
    """

    def __init__(self, settings: Settings, name: str, start_broker: bool) -> None:
        self.settings = settings
        self.name = name
        self.generation = 0
        self.on_reconnect: list[Callable[[], Awaitable[None]]] = []
        self._start_broker = start_broker
        self._endpoint: Endpoint | None = None
        self._link: Link | None = None
        self._up = asyncio.Event()
        self._closed = False
        self._reason = "not connected yet"
        self._watch = Watch(settings, start_broker)
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def nc(self) -> Any:
        """The present nats-py client; a lost one until the next is there."""
        if self._link is None:
            raise Disconnected("this connection was never opened; use connect()")
        return self._link.nc

    @property
    def endpoint(self) -> Endpoint:
        """Where the broker is, or was at the last look."""
        if self._endpoint is None:
            raise Disconnected("this connection was never opened; use connect()")
        return self._endpoint

    @property
    def connected(self) -> bool:
        """Tell whether a client is up at this moment."""
        return self._up.is_set() and not self._closed

    async def wait_connected(self, deadline: float) -> None:
        """Return as soon as a client is up. Raises NoBroker after `deadline` seconds, Disconnected when closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline):
                await self._up.wait()
        if self._closed:
            raise Disconnected("the connection was closed")
        if not self._up.is_set():
            raise NoBroker(f"no broker for {lasting(deadline)}: {self._reason}")

    async def request(
        self,
        subject: str,
        data: bytes | Pieces = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> Any:
        """Return the first reply, a nats-py Msg.

        What JetStream delivers to a pull keeps its own subject and is no reply: subscribe on `nc` for that.
        Raises Disconnected at once when the connection is down or lost meanwhile, RequestTimeout, NoResponders, and
        NotAllowed where the broker's permissions forbid it.
        """
        if self._link is None or self._closed:
            raise Disconnected("the connection was closed")
        return await self._link.request(subject, data, headers=headers, timeout=timeout)

    async def js(self, api: str, payload: Mapping[str, Any] | None = None, timeout: float = 5.0) -> dict[str, Any]:
        """Call `$JS.API.<api>` and return its answer.

        Raises JetStreamApiError where JetStream refuses, NoResponders where the broker has none.
        """
        data = b"" if payload is None else json.dumps(payload).encode()
        try:
            reply = await self.request(f"$JS.API.{api}", data, timeout=timeout)
        except NoResponders as error:
            where = ", ".join(map(shown, self.endpoint.urls))
            raise NoResponders(
                f"the broker at {where} has no JetStream: add a jetstream {{ }} block to its configuration"
            ) from error
        answer: dict[str, Any] = json.loads(reply.data)
        _raise_for(answer, api)
        return answer

    async def publish_ack(
        self, subject: str, data: bytes | Pieces, headers: Mapping[str, str] | None = None, timeout: float = 5.0
    ) -> PubAck:
        """Publish into the stream that takes `subject`, and return its acknowledgement.

        Raises JetStreamApiError when refused (10071: not the expected last sequence), PublishTimeout or Disconnected
        when it may or may not be stored, NoResponders when no stream takes the subject.
        """
        try:
            reply = await self.request(subject, data, headers=headers, timeout=timeout)
        except RequestTimeout as error:
            self._watch.unacknowledged()
            raise PublishTimeout(f"{subject} was not acknowledged within {lasting(timeout)}") from error
        answer = json.loads(reply.data)
        try:
            _raise_for(answer, subject)
        except JetStreamApiError as error:
            self._watch.refused(error.err_code)
            raise
        self._watch.acknowledged()
        return PubAck(int(answer["seq"]), bool(answer.get("duplicate", False)), str(answer["stream"]))

    async def last_message(self, stream: str, subject: str, timeout: float = 5.0) -> Message | None:
        """Return the newest message of a subject (wildcards allowed), or None where there is none."""
        question = json.dumps({"last_by_subj": subject}).encode()
        reply = await self.request(f"$JS.API.DIRECT.GET.{stream}", question, timeout=timeout)
        headers = reply.headers or {}
        code = headers.get("Status")
        if code == "404":
            return None
        if code is not None:
            raise JetStreamApiError(int(code), 0, headers.get("Description", ""), where=f"{stream} {subject}")
        return Message.from_direct(reply.data, headers)

    async def close(self) -> None:
        """End it, within 3 s whatever the broker does; every waiter gets Disconnected."""
        if self._closed:
            return
        self._closed = True
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait((self._supervisor,), timeout=0.5)
        if self._link is not None:
            await self._link.close()
        self._up.set()  # wakes those in wait_connected

    async def _open(self, deadline: float) -> None:
        end = asyncio.get_running_loop().time() + deadline
        self._endpoint = await in_thread(lambda: broker.ensure(self.settings, self._start_broker, deadline=deadline))
        left = max(0.5, end - asyncio.get_running_loop().time())
        self._link = await open_link(self._endpoint, name=self.name, timeout=left)
        self._arrived(self._link)
        self._supervisor = asyncio.create_task(self._supervise(), name=f"morphogen connection {self.name}")

    def _arrived(self, link: Link) -> None:
        self.generation += 1
        self._up.set()
        link.on_end = self._up.clear
        if link.ended.is_set():
            self._up.clear()

    async def _supervise(self) -> None:
        while not self._closed and self._link is not None:
            await self._watch.until_lost(self._link, self.endpoint)
            self._up.clear()
            await self._link.close()
            _log.warning("lost the broker at %s; connecting again in the background", shown(self._link.url))
            self._link = await self._connect_again()
            self._arrived(self._link)
            _log.info("connected to the broker at %s again", shown(self._link.url))
            await self._tell_reconnected()

    async def _connect_again(self) -> Link:
        pause, patience = _FIRST_PAUSE, _FIRST_PATIENCE
        while True:
            try:
                self._endpoint = await in_thread(
                    lambda: broker.ensure(self.settings, self._start_broker, background=True, deadline=10.0)
                )
                return await open_link(self._endpoint, name=self.name, timeout=patience)
            except BusError as error:
                if str(error) != self._reason:
                    self._reason = str(error)
                    _log.debug("still no broker: %s", error)
            except Exception as error:  # noqa: BLE001  (the task that restores the connection must not end)
                self._reason = f"{type(error).__name__}: {error}"
                _log.warning("cannot connect: %s", self._reason)
            await asyncio.sleep(pause * _dice.uniform(0.75, 1.25))
            pause = min(pause * 2, _LONGEST_PAUSE)
            patience = min(patience * 1.5, _LONGEST_PATIENCE)

    async def _tell_reconnected(self) -> None:
        for callback in list(self.on_reconnect):
            try:
                async with asyncio.timeout(_CALLBACK_PATIENCE):
                    await callback()
            except Exception as error:  # noqa: BLE001  (one subscriber's failure is not another's)
                _log.warning("a subscriber did not come back after a reconnect: %s: %s", type(error).__name__, error)


async def connect(settings: Settings, *, name: str, start_broker: bool = True, deadline: float = 5.0) -> Connection:
    """Connect to the broker of `settings`, starting the embedded one where `start_broker` is set.

    Fails at once when nothing answers (NoBroker, BrokerMissing, BrokerFailed), and within about `deadline` seconds
    anyhow; each address after the first may add half a second.
    Once connected, it reconnects by itself until it is closed.
    """
    connection = Connection(settings, name, start_broker)
    await connection._open(deadline)
    return connection


def _raise_for(answer: Mapping[str, Any], where: str) -> None:
    error = answer.get("error")
    if error:
        raise JetStreamApiError(
            int(error.get("code", 0)), int(error.get("err_code", 0)), str(error.get("description", "")), where=where
        )
