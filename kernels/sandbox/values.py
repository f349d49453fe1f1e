"""The one hash of values: by it a result that was recorded is known again, wherever it is computed."""

import hashlib

import msgspec

_ENCODER = msgspec.msgpack.Encoder()


def canonical(value: object) -> bytes:
    """Return a value's MessagePack with keys in order (numbers, then text, then others); equal values give equal bytes.

    The value is of those that may cross into the sandbox: None, bool, int of 64 bits, float, str, bytes, list, tuple (as
    a list) and dict with text or integer keys; or what else was recorded, such as a dict with other keys. Raises TypeError
    or OverflowError for what MessagePack has no form for.
    """
    return _ENCODER.encode(_in_order(value))


def value_sha256(value: object) -> str:
    """Return `sha256:` and the hash, in hex, of a value's `canonical` bytes."""
    return canonical_sha256(canonical(value))


def canonical_sha256(data: bytes) -> str:
    """Return the hash of a value that is `canonical` bytes already."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _in_order(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_in_order(item) for item in value]
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value, key=_place)}
    return value


def _place(key: object) -> tuple[int, object]:
    """Return where a key stands among others of any type: those that cannot be compared go by their bytes."""
    if isinstance(key, str):
        return 1, key
    if isinstance(key, int | float) and key == key:  # noqa: PLR0124 - NaN is in no order
        return 0, key
    return 2, _ENCODER.encode(key)
