"""The one hash of values: by it a result that was recorded is known again, wherever it is computed."""

import hashlib

import msgspec

_ENCODER = msgspec.msgpack.Encoder()


def canonical(value: object) -> bytes:
    """Return a value's MessagePack with keys in order (integers first, then text); equal values give equal bytes.

    The value is of those that may cross into the sandbox: None, bool, int of 64 bits, float, str, bytes, list, tuple (as
    a list) and dict with text or integer keys. Raises TypeError or OverflowError for others.
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
        keys = sorted(value, key=lambda key: (isinstance(key, str), key))
        return {key: _in_order(value[key]) for key in keys}
    return value
