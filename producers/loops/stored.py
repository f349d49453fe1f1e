"""Large values by reference: an output that no frame should hold is a blob, and the log has its hash."""

from typing import TYPE_CHECKING, Any

import msgspec

from morphogen.schemas import decode, encode

from .errors import LoopError

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

LARGE = 64 * 1024  # bytes of an encoded value from which on it becomes a blob
_MARK = "$blob"


def put(value: Any, bus: "Bus | None") -> Any:
    """Return the value, or, where it is large, the reference to the blob that holds it."""
    data = encode(value)
    if len(data) <= LARGE:
        return msgspec.msgpack.decode(data)
    if bus is None:
        raise LoopError(f"a value of {len(data):,} bytes needs a bus to be kept on")
    return {_MARK: bus.blobs.put(data), "size": len(data)}


def get(value: Any, bus: "Bus | None") -> Any:
    """Return what `put` was given."""
    if not isinstance(value, dict) or set(value) != {_MARK, "size"}:
        return value
    if bus is None:
        raise LoopError("a stored value needs a bus to be read from")
    return decode(bus.blobs.get(value[_MARK]))
