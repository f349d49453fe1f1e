"""The commands of one target as they come out of the work queue, each held until it is acknowledged.

All workers of a target share one durable consumer: a command goes to one of them, and to another when the first
does not acknowledge it, or say that it is still at work, within `ack_wait` seconds. The broker delivers for ever;
the worker counts and gives up.

A consumer costs the broker memory and files, and targets come and go: the last worker of one takes its consumer along
where no command is left to it, and the broker forgets one that nobody has asked for days. The commands stay, and come
anew to the next worker, which looks into the log for what was done of them.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from morphogen.schemas import token
from morphogen.schemas.moments import exact

from ..errors import BusError, Disconnected, JetStreamApiError, NoBroker
from ..message import Message, unix_ns
from ..streams import COMMANDS, LOG_SEQ_HEADER, stream_info

if TYPE_CHECKING:
    from ..connection import Connection

_EXPIRES = 30.0  # seconds
_HEARTBEAT = 5.0  # seconds
_SILENCE = 2 * _HEARTBEAT + 1.0
_ENDS = ("Batch Completed", "Message Size Exceeds MaxBytes")
_RETRY = 0.2  # seconds
_FORGOTTEN = 3 * 24 * 3600  # seconds without a worker after which the broker drops a consumer
_LEAVE = 1.0  # seconds that the broker gets for each answer to one that leaves
_HELD_UP = 1_000_000_000  # ns of the broker's clock in which a consumer hands out nothing while its last worker leaves

_log = logging.getLogger("morphogen.bus")


@dataclass(slots=True, eq=False)
class Delivery:
    """One handing-over of a message: which try it is (from 1), and the means to answer for it.

    `generation` is that of the connection that it came by. `seq` counts in the work queue, `log_seq` in the log (0 where it is not known); `stored` is unix ns.
    """

    conn: "Connection"
    data: bytes
    reply: str
    seq: int
    log_seq: int
    stored: int
    count: int
    generation: int
    headers: Mapping[str, str] = field(default_factory=dict)

    async def done(self) -> None:
        """Take it off the queue for good, and know that it is. Raises BusError where that is in doubt."""
        await self.conn.request(self.reply, b"+ACK")

    async def discard(self) -> None:
        """Take it off the queue as one that was not done. Raises BusError where that is in doubt."""
        await self.conn.request(self.reply, b"+TERM")

    async def retry(self, delay: float) -> None:
        """Have it delivered again after `delay` seconds."""
        await self.conn.request(self.reply, b"-NAK " + json.dumps({"delay": int(delay * 1e9)}).encode())

    async def touch(self) -> None:
        """Say that the work goes on, so that nobody else is given it."""
        await self.conn.nc.publish(self.reply, b"+WPI")


class WorkQueue:
    """Pull the commands of `target`, never more than are wanted, across any number of lost brokers."""

    def __init__(self, conn: "Connection", target: str, *, ack_wait: float) -> None:
        self._conn = conn
        self._consumer = f"worker-{token(target)}"
        self._filter = f"morphogen.command.to-{token(target)}.*"
        self._ack_wait = ack_wait
        self._arrived: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._asked = 0
        self._heard = 0.0
        self.began = 0.0  # on the monotonic clock: the last time that it began to pull
        self.last_seq = 0  # the newest command that the queue held then
        self._open = False
        self._nc: Any = None
        self._subscription: Any = None
        self._generation = 0
        self._inbox = ""

    async def next(self, room: int) -> Delivery | None:
        """Return the next delivery, or None after some seconds without one; `room` more are welcome.

        Raises Disconnected when the connection is closed for good.
        """
        try:
            if not self._open:
                await self._start()
            await self._ask(room)
            async with asyncio.timeout(_HEARTBEAT):
                delivery = await self._arrived.get()
        except TimeoutError:
            if time.monotonic() - self._heard > _SILENCE:
                self._open = False
            return None
        except BusError as error:
            if isinstance(error, JetStreamApiError) and 400 <= error.code < 500:
                raise
            self._open = False
            _log.debug("waiting for the work queue: %s", error)
            await asyncio.sleep(_RETRY)
            with contextlib.suppress(NoBroker):
                await self._conn.wait_connected(_HEARTBEAT)
            return None
        return delivery

    def put_back(self, delivery: Delivery | None) -> None:
        """Take back a delivery that nobody began."""
        self._arrived.put_nowait(delivery)

    async def close(self) -> None:
        """Ask for no more, and hand back at once what has come and nobody began."""
        with contextlib.suppress(ValueError):
            self._conn.on_reconnect.remove(self._lost)
        await self._stop()
        while not self._arrived.empty():
            delivery = self._arrived.get_nowait()
            if delivery is not None:
                with contextlib.suppress(BusError):
                    await delivery.retry(0)

    async def leave(self) -> None:
        """Take the consumer off the broker, once closed, where no worker asks it and no command is left to it.

        It is held up for a second look: a command in the hands of a worker who joins may not lose its consumer, which
        keeps it from others. One that stays goes on by itself, soon after.
        """
        name = f"{COMMANDS}.{self._consumer}"
        with contextlib.suppress(BusError):
            held = await self._conn.js(f"CONSUMER.INFO.{name}", timeout=_LEAVE)
            if held.get("paused") or _is_asked(held):  # another worker leaves, or stays
                return
            until = exact(unix_ns(held["ts"]) + _HELD_UP)
            await self._conn.js(f"CONSUMER.PAUSE.{name}", {"pause_until": until}, timeout=_LEAVE)
            held = await self._conn.js(f"CONSUMER.INFO.{name}", timeout=_LEAVE)
            if held.get("paused") and not _is_asked(held):
                await self._conn.js(f"CONSUMER.DELETE.{name}", timeout=_LEAVE)

    async def _lost(self) -> None:
        self._open = False
        self._arrived.put_nowait(None)

    async def _start(self) -> None:
        await self._stop()
        if self._lost not in self._conn.on_reconnect:
            self._conn.on_reconnect.append(self._lost)
        nc, self._generation = self._conn.nc, self._conn.generation
        config = {
            "durable_name": self._consumer,
            "filter_subject": self._filter,
            "ack_policy": "explicit",
            "ack_wait": int(self._ack_wait * 1e9),
            "max_deliver": -1,
            "max_ack_pending": -1,
            "inactive_threshold": _FORGOTTEN * 1_000_000_000,
            "deliver_policy": "all",
            "replay_policy": "instant",
        }
        await self._conn.js(
            f"CONSUMER.CREATE.{COMMANDS}.{self._consumer}.{self._filter}",
            {"stream_name": COMMANDS, "config": config, "action": ""},
        )
        self.last_seq = (await stream_info(self._conn, COMMANDS)).last_seq
        self._nc, self._inbox = nc, nc.new_inbox()
        self._subscription = await nc.subscribe(
            self._inbox, cb=self._receive, pending_msgs_limit=0, pending_bytes_limit=0
        )
        self._asked = 0
        self._heard = self.began = time.monotonic()
        self._open = True

    async def _stop(self) -> None:
        if self._subscription is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1):
                    await self._subscription.drain()  # what is on its way still arrives
            self._nc.drop(self._subscription)  # a drain that the broker did not answer leaves it standing
            self._subscription = None

    async def _ask(self, room: int) -> None:
        missing = room - self._asked - self._arrived.qsize()
        if missing <= 0:
            return
        if not self._asked:
            self._heard = time.monotonic()
        request = {"batch": missing, "expires": int(_EXPIRES * 1e9), "idle_heartbeat": int(_HEARTBEAT * 1e9)}
        try:
            await self._conn.nc.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{COMMANDS}.{self._consumer}", json.dumps(request).encode(), self._inbox
            )
        except Exception as error:
            raise Disconnected(f"cannot ask for commands: {error}") from error
        self._asked += missing

    async def _receive(self, message: Any) -> None:
        self._heard = time.monotonic()
        headers = message.headers or {}
        if not message.reply.startswith("$JS.ACK."):
            self._status(headers)
            return
        fields = message.reply.split(".")
        base = 4 if len(fields) == 9 else 6
        self._asked = max(0, self._asked - 1)
        self._arrived.put_nowait(
            Delivery(
                conn=self._conn,
                data=message.data,
                reply=message.reply,
                count=int(fields[base]),
                generation=self._generation,
                seq=int(fields[base + 1]),
                stored=int(fields[base + 3]),
                log_seq=int(headers.get(LOG_SEQ_HEADER, 0)),
                headers=headers,
            )
        )

    def _status(self, headers: Mapping[str, str]) -> None:
        status, description = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":
            return
        self._asked = max(0, self._asked - int(headers.get("Nats-Pending-Messages", 0)))
        if status != "408" and description not in _ENDS:
            self._open = False
        self._arrived.put_nowait(None)  # let `next` ask again


def _is_asked(held: Mapping[str, Any]) -> bool:
    """Tell of a consumer, as the broker describes it, whether a worker asks it or a command is left to it."""
    return bool(held["num_waiting"] or held["num_pending"] or held["num_ack_pending"])


async def waiting(conn: "Connection", subject: str) -> AsyncGenerator[Message, None]:
    """Yield the messages of a subject (wildcards allowed) that the work queue holds, without taking them."""
    seq = 1
    while True:
        question = json.dumps({"seq": seq, "next_by_subj": subject}).encode()
        reply = await conn.request(f"$JS.API.DIRECT.GET.{COMMANDS}", question)
        headers = reply.headers or {}
        if headers.get("Status") is not None:
            return
        message = Message.from_direct(reply.data, headers)
        yield message
        seq = message.seq + 1
