"""The constant bytes of the records of one event type and version."""

import struct

import msgspec

_UINT64 = struct.Struct(">Q")
_INT64 = struct.Struct(">q")
_encode = msgspec.msgpack.encode


class Kind:
    """Make it once, append with it for ever: `middle` is what stands between a record's counter and its step."""

    __slots__ = ("middle", "type", "version")

    def __init__(self, type: str, version: int) -> None:  # noqa: A002
        self.type = type
        self.version = version
        self.middle = b"\xa4type" + _encode(type) + b"\xa7version" + _encode(version) + b"\xa4step\xd3"

    def rest(self, step: object, time_ns: int, cause: str | None) -> bytes:
        """Return the map behind its counter and up to its body, for any step: one that no log can hold becomes nil."""
        return b"".join(
            (
                self.middle[:-1], _step(step), b"\xa4time\xcf",
                _UINT64.pack(min(max(time_ns, 0), 2**64 - 1)), b"\xa5cause", _encode(cause), b"\xa4body",
            )
        )  # fmt: skip


def _step(step: object) -> bytes:
    """Return an int in the form that `middle` announces, where 64 bits with a sign hold it; nil for what none do."""
    try:
        whole = int(step)  # type: ignore[call-overload]
        if whole != step:
            return b"\xc0"
        return b"\xd3" + _INT64.pack(whole) if whole < 2**63 else _encode(whole)
    except (TypeError, ValueError, OverflowError, struct.error):
        return b"\xc0"
