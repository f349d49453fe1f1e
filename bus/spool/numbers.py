"""Names and plain numbers as msgpack: what a training loop logs at every step."""

import msgspec

PLAIN = frozenset({float, int})
_TEXT = frozenset({str})


def encoded(values: object) -> bytes | None:
    """Return a dict of text and plain numbers (floats, and ints of 64 bits) as a map; None for all else, or nothing."""
    try:
        if type(values) is dict and {*map(type, values)} == _TEXT and PLAIN.issuperset(map(type, values.values())):
            return _encode(values)
    except (ValueError, OverflowError, RuntimeError):  # no text, more than 64 bits, or another thread changed it
        pass
    return None


_encode = msgspec.msgpack.encode
