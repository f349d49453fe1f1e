"""One ephemeral pull consumer: many messages a second, in order, never more in memory than asked for.

Requests for messages are kept outstanding so that the broker never waits for us, bounded by messages and by
bytes. What arrives is checked by the consumer's own delivery count, so that a message lost on the way is noticed
at once, with or without a filter. When anything is out of order the pull is `broken`: make another one from the
next sequence.
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from morphogen.schemas.moments import exact

from .errors import BusError

if TYPE_CHECKING:
    from .connection import Connection

WINDOW = 16 << 20  # bytes asked for and not yet here
BUFFER = 32 << 20  # bytes asked for, or here and not yet taken
_BATCH = 8192  # messages of one request
_ENDS = ("Batch Completed", "Message Size Exceeds MaxBytes")  # of one request; the consumer lives on
_SMALLEST = 4 << 20  # bytes; above any broker's largest message that we use, so no request starves
_EXPIRES = 30.0  # seconds
_HEARTBEAT = 3.0  # seconds; of an idle request
_SILENCE = 2 * _HEARTBEAT + 1.0
_FORGET = 60.0  # seconds after which the broker deletes the consumer of a reader that died


class Message(NamedTuple):
    """A stored message: its sequence, the broker's clock when it was stored (unix ns), its subject, its bytes.

    `brought` is how many of the bytes the log does not have: those of bodies that lie in blobs, less their references.
    """

    seq: int
    stored: int
    subject: str
    data: bytes
    brought: int = 0

    @property
    def size(self) -> int:
        """How many bytes the message has in the log."""
        return len(self.data) - self.brought


class Pull:
    """A consumer of `stream` from a sequence or a time on, over `filters` (no filter: everything).

    `pending` is how many matching messages the broker still had when it sent the last one that was taken.
    """

    def __init__(
        self,
        conn: "Connection",
        stream: str,
        *,
        filters: Sequence[str] = (),
        start: int = 1,
        since_ns: int | None = None,
    ) -> None:
        self._conn = conn
        self._stream = stream
        self._filters = list(filters)
        self._start = start
        self._since_ns = since_ns
        self._name = f"read-{secrets.token_hex(8)}"
        self._ready: list[Message] = []
        self._ready_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._credit = 0  # messages asked for and not here: exact
        self._credit_bytes = 0  # the same in bytes, counted as the broker counts
        self._requests = 0
        self._delivered = 0
        self._heard = time.monotonic()
        self._subscription: Any = None
        self._nc: Any = None
        self._inbox = ""
        self.pending = 0
        self.broken: str | None = None
        self.beats = 0

    @property
    def ready(self) -> bool:
        """Tell whether messages lie here that nobody took."""
        return bool(self._ready)

    async def open(self) -> None:
        """Create the consumer and ask for the first messages. Raises BusError where the broker will not have it."""
        config: dict[str, Any] = {
            "name": self._name,
            "ack_policy": "none",
            "replay_policy": "instant",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": max(self._start, 1),
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(_FORGET * 1e9),
        }
        if self._since_ns is not None:
            del config["opt_start_seq"]
            config.update(deliver_policy="by_start_time", opt_start_time=exact(self._since_ns))
        if self._filters:
            config["filter_subjects"] = self._filters
        self._nc = self._conn.nc
        self._inbox = self._nc.new_inbox()
        self._subscription = await self._nc.listen(self._inbox, self._receive)
        reply = await self._conn.js(
            f"CONSUMER.CREATE.{self._stream}.{self._name}",
            {"stream_name": self._stream, "config": config, "action": "create"},
        )
        self.pending = int(reply.get("num_pending", 0))
        self._heard = time.monotonic()
        await self._ask()

    async def take(self, timeout: float) -> list[Message]:
        """Return what has arrived, waiting at most `timeout` seconds for something; [] when nothing came."""
        if not self._ready and self.broken is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait([self._waiter], timeout=timeout)
            finally:
                self._waiter = None
        batch, self._ready = self._ready, []
        self._ready_bytes = 0
        if batch:
            await self._ask()
        elif self.broken is None:
            await self._listen_for_silence()
        return batch

    def stop(self, reason: str) -> None:
        """Mark the pull as broken, which wakes whoever waits in `take`."""
        if self.broken is None:
            self.broken = reason
        self._wake()

    async def close(self) -> None:
        """Let go of what nobody took, and take the consumer off the broker, within two seconds; else it forgets it by itself."""
        self._ready, self._ready_bytes = [], 0
        with contextlib.suppress(BusError, TimeoutError, Exception):
            async with asyncio.timeout(2):
                if self._subscription is not None and not self._nc.is_closed:
                    await self._subscription.unsubscribe()
                if self._nc is not None and self._nc.is_connected and self._nc is self._conn.nc:
                    await self._conn.js(f"CONSUMER.DELETE.{self._stream}.{self._name}", None)

    async def delivered_all(self) -> bool:
        """Ask the broker whether it has nothing more for this consumer and all it sent is here."""
        reply = await self._conn.js(f"CONSUMER.INFO.{self._stream}.{self._name}", None)
        return int(reply["num_pending"]) == 0 and int(reply["delivered"]["consumer_seq"]) == self._delivered

    async def _receive(self, message: Any) -> None:
        self._heard = time.monotonic()
        reply: str = message.reply
        if not reply.startswith("$JS.ACK."):
            await self._status(message.headers or {})
            return
        if self.broken is not None:
            return
        fields = reply.split(".")
        base = 5 if len(fields) == 9 else 7  # the longer form carries a domain and an account
        count = int(fields[base + 1])
        if count != self._delivered + 1:
            self.stop(f"delivery {count} came after {self._delivered}")
            return
        self._delivered = count
        self.pending = int(fields[base + 3])
        data: bytes = message.data
        size = len(data) + len(reply) + len(message.subject)
        if message.headers:
            size += 12 + sum(len(key) + len(value) + 4 for key, value in message.headers.items())
        self._ready.append(Message(int(fields[base]), int(fields[base + 2]), message.subject, data))
        self._ready_bytes += size
        self._credit -= 1
        self._credit_bytes -= size
        if self._waiter is not None:
            self._wake()
        if self._credit < _BATCH // 2 or self._credit_bytes < WINDOW // 2:
            await self._ask()

    async def _status(self, headers: dict[str, str]) -> None:
        status = headers.get("Status", "")
        description = headers.get("Description", "")
        if status == "100":
            self.beats += 1
            last = int(headers.get("Nats-Last-Consumer", 0))
            if last > self._delivered:
                self.stop(f"delivery {last} did not arrive")
            self._wake()
            return
        ended = status == "408" or description in _ENDS
        if not ended:
            # The consumer was deleted, the server shuts down, the leader moved, or nobody listens there.
            self.stop(f"{status} {description}".strip())
            return
        self._requests = max(0, self._requests - 1)
        self._credit = max(0, self._credit - int(headers.get("Nats-Pending-Messages", 0)))
        self._credit_bytes = max(0, self._credit_bytes - int(headers.get("Nats-Pending-Bytes", 0)))
        await self._ask()

    async def _ask(self) -> None:
        """Keep requests outstanding, as far as the buffer has room."""
        if self.broken is not None:
            return
        if self._requests <= 0:
            self._credit = self._credit_bytes = self._requests = 0
        if self._credit >= _BATCH // 2 and self._credit_bytes >= WINDOW // 2:
            return
        asked = max(0, self._credit_bytes)
        room = BUFFER - asked - self._ready_bytes
        if room < _SMALLEST:
            return
        room = min(room, max(WINDOW - asked, _SMALLEST))
        self._credit += _BATCH
        self._credit_bytes += room
        self._requests += 1
        request = {
            "batch": _BATCH,
            "max_bytes": room,
            "expires": int(_EXPIRES * 1e9),
            "idle_heartbeat": int(_HEARTBEAT * 1e9),
        }
        try:
            await self._nc.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}", json.dumps(request).encode(), self._inbox
            )
        except Exception as error:  # noqa: BLE001  the client has many ways to say that it is not connected
            self.stop(f"cannot ask for messages: {error}")

    async def _listen_for_silence(self) -> None:
        if time.monotonic() - self._heard < _SILENCE:
            return
        # A loop that was blocked for long has heartbeats waiting in its socket: look there before believing it.
        await asyncio.sleep(0.2)
        if not self._ready and time.monotonic() - self._heard >= _SILENCE:
            self.stop("the broker fell silent")

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
