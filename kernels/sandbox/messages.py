"""What a worker may say, decoded by shape first; the values inside stay raw until they are counted."""

import msgspec

from .channel import Garbage


class Ready(msgspec.Struct, frozen=True, tag_field="t", tag="ready"):
    """The worker is sealed: layer by layer, nothing or the reason why it does not hold."""

    layers: dict[str, str]


class Compiled(msgspec.Struct, frozen=True, tag_field="t", tag="compiled"):
    """The tool's text, compiled: bytes for another worker, which the host never reads; none where they are too many.

    It comes first, before any of the text has run, and once; from a tool itself it is no message.
    """

    code: bytes


class Call(msgspec.Struct, frozen=True, tag_field="t", tag="call"):
    """The tool asks for a capability."""

    name: str
    args: msgspec.Raw
    kwargs: msgspec.Raw


class Done(msgspec.Struct, frozen=True, tag_field="t", tag="done"):
    """The tool returned."""

    value: msgspec.Raw
    printed: str
    cut: bool


class Fail(msgspec.Struct, frozen=True, tag_field="t", tag="fail"):
    """The tool raised."""

    type: str
    message: str
    line: int | None
    printed: str
    cut: bool


Said = Ready | Compiled | Call | Done | Fail

_DECODER: msgspec.msgpack.Decoder[Said] = msgspec.msgpack.Decoder(Said)


def decode_said(body: bytes) -> Said:
    """Read what a worker says; Garbage where it is anything else."""
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError, ValueError) as error:
        raise Garbage(str(error)[:200]) from None
