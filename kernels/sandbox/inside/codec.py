"""MessagePack for the values that may cross: None, bool, int of 64 bits, float, str, bytes, list and dict.

Both sides use it. The host reads bytes of a hostile process with it, so depth and the number of items are bounded, keys
are text or integers (which cannot be made to collide at will), and each fault is a ValueError. Tuples cross as lists.
"""

import _struct

MAX_DEPTH = 32
MAX_ITEMS = 200_000

_SCALARS = {0xC0: None, 0xC2: False, 0xC3: True}
_UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_SIGNED = {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_TEXT = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_LIST = {0xDC: 2, 0xDD: 4}
_MAP = {0xDE: 2, 0xDF: 4}


class Uncrossable(ValueError):
    """A value, or bytes, that may not cross."""


class Encoded:
    """A value that is written already."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def encode(value: object, limit: int) -> bytes:
    """Write a value in at most `limit` bytes; Uncrossable says what cannot cross, and what to return instead."""
    out = bytearray()
    _write(value, out, limit, 0)
    return bytes(out)


def _write(value: object, out: bytearray, limit: int, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise Uncrossable(f"a value nested deeper than {MAX_DEPTH} cannot cross; flatten it")
    if value is None:
        out.append(0xC0)
    elif value is True or value is False:
        out.append(0xC3 if value else 0xC2)
    elif isinstance(value, int):
        _write_int(value, out)
    elif isinstance(value, float):
        out.append(0xCB)
        out += _struct.pack(">d", value)
    elif isinstance(value, str):
        try:
            data = str.encode(value, "utf-8")
        except UnicodeEncodeError:
            raise Uncrossable("text with lone surrogates cannot cross; encode it to bytes first") from None
        _head(len(data), out, 0xA0, 31, 0xD9, 0xDA, 0xDB)
        out += data
    elif isinstance(value, bytes):
        _head(len(value), out, 0, -1, 0xC4, 0xC5, 0xC6)
        out += value
    elif isinstance(value, list | tuple):
        _head(len(value), out, 0x90, 15, 0, 0xDC, 0xDD)
        for item in value:
            _write(item, out, limit, depth + 1)
    elif isinstance(value, dict):
        _head(len(value), out, 0x80, 15, 0, 0xDE, 0xDF)
        for key, item in value.items():
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise Uncrossable(f"a key of type {type(key).__name__} cannot cross; use text or an integer")
            _write(key, out, limit, depth + 1)
            _write(item, out, limit, depth + 1)
    elif type(value) is Encoded:
        out += value.data
    else:
        name = type(value).__name__
        raise Uncrossable(f"a value of type {name} cannot cross; use None, bool, int, float, str, bytes, list or dict")
    if len(out) > limit:
        raise Uncrossable(f"a value of more than {limit} bytes cannot cross; return less, or write a file")


def _write_int(value: int, out: bytearray) -> None:
    if 0 <= value < 0x80:
        out.append(value)
    elif -32 <= value < 0:
        out.append(value & 0xFF)
    elif 0 <= value < 1 << 64:
        width, tag = next((w, t) for t, w in _UNSIGNED.items() if value < 1 << (8 * w))
        out.append(tag)
        out += value.to_bytes(width, "big")
    elif -(1 << 63) <= value < 0:
        width, tag = next((w, t) for t, w in _SIGNED.items() if value >= -(1 << (8 * w - 1)))
        out.append(tag)
        out += value.to_bytes(width, "big", signed=True)
    else:
        raise Uncrossable("an integer of more than 64 bits cannot cross; return it as text")


def _head(size: int, out: bytearray, small: int, most: int, one: int, two: int, four: int) -> None:
    if size <= most:
        out.append(small | size)
    elif one and size < 0x100:
        out += bytes((one, size))
    elif size < 0x10000:
        out.append(two)
        out += size.to_bytes(2, "big")
    elif size < 0x100000000:
        out.append(four)
        out += size.to_bytes(4, "big")
    else:
        raise Uncrossable("more than 4 GiB cannot cross")


def decode(data: bytes, max_items: int = MAX_ITEMS) -> object:
    """Read one value that fills `data` exactly; Uncrossable where it is anything else."""
    reader = _Reader(data, max_items)
    value = reader.value(0)
    if reader.at != len(data):
        raise Uncrossable("bytes after the value")
    return value


class _Reader:
    def __init__(self, data: bytes, max_items: int) -> None:
        self.data = data
        self.at = 0
        self.left = max_items

    def take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise Uncrossable("bytes end inside a value")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def size(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def text(self, size: int) -> str:
        try:
            return str(self.take(size), "utf-8")
        except UnicodeDecodeError:
            raise Uncrossable("text that is not UTF-8") from None

    def value(self, depth: int) -> object:
        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH:
            raise Uncrossable("too many items, or nested too deep")
        tag = self.take(1)[0]
        if tag < 0x80:
            return tag
        if tag >= 0xE0:
            return tag - 0x100
        if tag in _SCALARS:
            return _SCALARS[tag]
        if 0xA0 <= tag < 0xC0:
            return self.text(tag & 31)
        if tag in _TEXT:
            return self.text(self.size(_TEXT[tag]))
        if tag in _BYTES:
            return self.take(self.size(_BYTES[tag]))
        if tag in _UNSIGNED:
            return self.size(_UNSIGNED[tag])
        if tag in _SIGNED:
            return int.from_bytes(self.take(_SIGNED[tag]), "big", signed=True)
        if tag == 0xCB:
            return _struct.unpack(">d", self.take(8))[0]
        if 0x90 <= tag < 0xA0 or tag in _LIST:
            count = tag & 15 if tag < 0xA0 else self.size(_LIST[tag])
            return [self.value(depth + 1) for _ in range(count)]
        if tag < 0x90 or tag in _MAP:
            return self.map(tag & 15 if tag < 0x90 else self.size(_MAP[tag]), depth)
        raise Uncrossable(f"a byte 0x{tag:02x} that begins no value")

    def map(self, count: int, depth: int) -> dict[str | int, object]:
        out: dict[str | int, object] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if isinstance(key, bool) or not isinstance(key, str | int):
                raise Uncrossable("a key that is neither text nor an integer")
            out[key] = self.value(depth + 1)
        return out
