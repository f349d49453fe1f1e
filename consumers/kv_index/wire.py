"""Foreign bytes as plain values, and plain values as what they claim to be: nothing here trusts a sender.

Every reader raises BadPayload in one line for what does not fit; nothing else comes out of them, whatever goes in.
"""

from typing import Any

import msgspec

from .errors import BadPayload

LARGEST = 64 << 20  # bytes of one message
MOST_BLOCKS = 1 << 20  # of one event
REFUSED = b"\xc1refused"  # stands for a message that ZMQ did not let through; no msgpack begins so
_HASH = 64  # bytes; a sha256 has 32
_WORD = 2**64


def unpack(payload: bytes) -> Any:
    """Return a msgpack document as plain values."""
    if payload == REFUSED:
        raise BadPayload(f"ZMQ refuses it: more than {LARGEST:,} bytes")
    if len(payload) > LARGEST:
        raise BadPayload(f"{len(payload):,} bytes, more than {LARGEST:,}")
    try:
        return msgspec.msgpack.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise BadPayload(f"no msgpack: {line_of(error)}") from error


def unjson(payload: bytes) -> Any:
    """Return a JSON document as plain values."""
    if len(payload) > LARGEST:
        raise BadPayload(f"{len(payload):,} bytes, more than {LARGEST:,}")
    try:
        return msgspec.json.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise BadPayload(f"no JSON: {line_of(error)}") from error


def hash_text(value: Any, what: str) -> str:
    """Return a block's hash as text: bytes in hex, 64-bit integers unsigned (producers disagree on the sign)."""
    if isinstance(value, bytes) and len(value) > _HASH:
        raise BadPayload(f"{what} is no hash: {len(value):,} bytes")
    if isinstance(value, bytes) and value:
        return value.hex()
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value % _WORD)
    raise BadPayload(f"{what} is no hash: {_short(value)}")


def hash_list(value: Any, what: str) -> list[str]:
    """Return a list of hashes as texts."""
    if not isinstance(value, list) or len(value) > MOST_BLOCKS:
        raise BadPayload(f"{what} is no list of hashes: {_short(value)}")
    return [hash_text(one, what) for one in value]


def integer(value: Any, what: str, low: int = 0, high: int = 2**63 - 1) -> int:
    """Return an integer within bounds."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadPayload(f"{what} is no integer from {low} to {high}: {_short(value)}")
    return value


def text_or_none(value: Any, what: str) -> str | None:
    """Return a text, or None."""
    if value is not None and (not isinstance(value, str) or len(value) > 1024):
        raise BadPayload(f"{what} is no text: {_short(value)}")
    return value or None


def field(document: Any, names: tuple[str, ...], at: int | None, default: Any = None) -> Any:
    """Return a field of a struct that travels as a map (the first of `names` that it has) or as an array (place `at`)."""
    if isinstance(document, dict):
        for name in names:
            if name in document:
                return document[name]
        return default
    return document[at] if at is not None and at < len(document) else default


def _short(value: Any) -> str:
    """Return a value as a line shows it; of what holds others only its kind, for those may be nested without an end."""
    if isinstance(value, list | dict) or (isinstance(value, bytes | str) and len(value) >= 40):
        return type(value).__name__
    return repr(value)[:80]


def line_of(error: BaseException) -> str:
    """Return what an error says in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
