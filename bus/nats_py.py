"""nats-py's client and errors: imported without aiohttp, and with fewer turns of the event loop for each message.

nats-py wants aiohttp for addresses with ws:// only. Where it is installed, to import it takes longer than nats-py itself,
in each process that opens the log. Here it waits until something of it is used.
"""

import asyncio
import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Awaitable, Callable, Mapping
from types import ModuleType
from typing import Any


class _WhenUsed(ModuleType):
    """Stands for a module in nats-py's eyes, and lets it be imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        self.leave()
        return getattr(importlib.import_module(self.__name__), name)

    def leave(self) -> None:
        """Give the name back, so that who imports the module from now on has the real one."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]


_aiohttp = _WhenUsed("aiohttp")
if "aiohttp" not in sys.modules and importlib.util.find_spec("aiohttp") is not None:
    sys.modules["aiohttp"] = _aiohttp
try:
    from nats import errors
    from nats.aio.client import Client as _Client
finally:
    _aiohttp.leave()

__all__ = ["Client", "Pieces", "errors"]

Heard = Callable[[Any], Awaitable[None]]
Refused = Callable[[str, Exception], bool]
_AT_ONCE = 64 * 1024  # bytes that are not kept back for the rest of the loop's turn


class Pieces:
    """A payload that lies in several places: it is put together once, on its way into the socket.

    What nats-py gets as bytes it copies twice, and each copy of a megabyte is as many fresh pages.
    """

    __slots__ = ("pieces",)

    def __init__(self, *pieces: "bytes | memoryview") -> None:
        self.pieces = pieces

    def __len__(self) -> int:
        return sum(map(len, self.pieces))


class Client(_Client):  # type: ignore[misc]  # nats-py has no types
    """nats-py's client, which goes through the event loop less often.

    Each turn of the loop gives the interpreter's lock up and asks for it again. Beside a training thread that computes in
    Python that takes 5 ms a time, and nats-py makes two turns more than it must for each acknowledged message: one from the
    read loop to a subscription's own task, and one from `publish` to the task that writes.

    `refusals` are asked when the broker does not let us use a subject, which they are given in lower case with the
    error: each says whether it was waiting for that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refusals: set[Refused] = set()
        self._writing_soon = False
        self._flushing: asyncio.Future[Any] | None = None  # held: the loop alone would let go of it

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Go on in the clear only where the address lets us: nats-py shows the token to any server that does not ask for TLS."""
        if initial_connection and self._current_server.uri.scheme == "tls":
            if not (info.get("tls_required") or info.get("tls_available")):
                raise errors.Error("it offers no TLS, which the address asks for")
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def listen(self, subject: str, heard: Heard) -> Any:
        """Subscribe; `heard` is called from within the read loop, for one message after another, and must not block."""
        subscription = await self.subscribe(subject, cb=heard, pending_msgs_limit=0, pending_bytes_limit=0)
        subscription.heard = heard  # it lies there, so that it goes when nats-py lets go of the subscription
        return subscription

    def drop(self, subscription: Any) -> None:
        """Let go of a subscription whatever became of it, without a word to the broker."""
        self._remove_sub(subscription._id)
        subscription._stop_processing()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        heard = getattr(self._subs.get(sid), "heard", None)
        if heard is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            self.stats["in_msgs"] += 1
            self.stats["in_bytes"] += len(data)
            message = self._build_message(sid, subject, reply, data, await self._process_headers(headers))
            await heard(message)
        except Exception as error:  # noqa: BLE001  what is raised here would end the read loop
            await self._error_cb(error)

    async def _send_publish(
        self, subject: str, reply: str, payload: "bytes | Pieces", payload_size: int, headers: Mapping[str, str] | None
    ) -> None:
        if not isinstance(payload, Pieces):
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        head = _head(headers)
        verb = f"HPUB {subject} {reply} {len(head)}" if head else f"PUB {subject} {reply}"
        line = f"{verb} {len(head) + payload_size}\r\n".encode()
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += payload_size
        await self._send_command(b"".join((line, head, *payload.pieces, b"\r\n")))
        if self._pending_data_size >= _AT_ONCE:
            await self._flush_pending()
        elif not self._writing_soon:
            self._writing_soon = True
            asyncio.get_running_loop().call_soon(self._write_soon)

    def _write_soon(self) -> None:
        """Write together what was published in one turn of the loop: small frames of several lanes."""
        self._writing_soon = False
        if self._pending and self.is_connected:
            if self._can_write():
                with contextlib.suppress(RuntimeError):  # the connection ends: who waits for an answer will hear
                    self._write()
            else:
                self._flushing = asyncio.ensure_future(super()._flush_pending())

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        """Write at once where nothing waits to be written; else leave it to the task that waits for room."""
        if not force_flush and self.is_connected and self._pending and self._can_write():
            self._write()
            return None
        return await super()._flush_pending(force_flush)

    def _write(self) -> None:
        self._transport.writelines(self._pending)
        self._pending.clear()  # the transport has taken what lay in it
        self._pending_data_size = 0

    def _can_write(self) -> bool:
        writer = getattr(self._transport, "_io_writer", None)  # a websocket has none
        return writer is not None and writer.transport.get_write_buffer_size() == 0


def _head(headers: Mapping[str, str] | None) -> bytes:
    lines = [f"{name}: {value}" for name, value in (headers or {}).items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise errors.BadHeaderError("a header of more than one line")
    return "\r\n".join(("NATS/1.0", *lines, "", "")).encode() if lines else b""
