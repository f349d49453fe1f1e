"""The log: broker, streams, publish, read, commands with dead letters, blobs, request and reply.

Knows frames and streams, never what an event means. The functions are asynchronous over a `Connection`; `Bus` is
the plain face of them all. Importing this package imports nothing heavy: a name is loaded when it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .blobs import BlobRef
    from .bus import Bus, Seen, Serving
    from .commands.dead import Letter
    from .commands.issue import Command, Worker, send, serve
    from .connection import Connection, PubAck, connect
    from .errors import BusError
    from .reader import Message, read
    from .requests import Responder, call, call_stream, respond
    from .settings import Settings
    from .streams import StreamInfo, ensure_streams, stream_info

_HOMES = {
    "blobs": ("BlobRef",),
    "bus": ("Bus", "Seen", "Serving"),
    "commands": ("Command", "Worker", "send", "serve"),
    "connection": ("Connection", "PubAck", "connect"),
    "commands.dead": ("Letter",),
    "errors": ("BusError",),
    "reader": ("Message", "read"),
    "requests": ("Responder", "call", "call_stream", "respond"),
    "settings": ("Settings",),
    "streams": ("StreamInfo", "ensure_streams", "stream_info"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BlobRef",
    "Bus",
    "BusError",
    "Command",
    "Connection",
    "Letter",
    "Message",
    "PubAck",
    "Responder",
    "Seen",
    "Serving",
    "Settings",
    "StreamInfo",
    "Worker",
    "call",
    "call_stream",
    "connect",
    "ensure_streams",
    "read",
    "respond",
    "send",
    "serve",
    "stream_info",
]


def __getattr__(name: str) -> Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
