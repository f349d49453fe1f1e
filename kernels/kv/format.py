r"""A KV state as bytes: a fixed start, a header that says all, the engine's bytes, and checksums over both.

    offset  size  what, little-endian
    0       8     magic "MGKVSTA\0"
    8       2     version of this format, 1
    10      2     encoding of the header: 1 = msgpack map
    12      4     bytes of the header
    16      8     offset of the payload, a multiple of 4096
    24      8     bytes of the payload
    32      16    checksum of the payload (`checksum.checksum`)
    48      16    XXH3-128 of bytes 0..48 and of the header
    64      ...   the header, then zeros, then the payload up to the end

The payload lies on a page of its own, so that it can be mapped and given to the engine where it is. Knows bytes; knows
nothing of llama.cpp. Nothing in here is trusted before its checksum was seen to fit.
"""

import struct
from typing import Any

import msgspec
import numpy as np

from morphogen.schemas.kv import Fingerprint

from .checksum import checksum, xxh3
from .errors import KvError, KvRefused

MAGIC = b"MGKVSTA\0"
VERSION = 1
MSGPACK = 1
START = struct.Struct("<8sHHIQQ16s")
START_BYTES = START.size + 16
PAGE = 4096
OPAQUE, LLAMA_KV = 0, 1
MAX_HEADER = 64 << 20
KIND = "kv-header-xxh3-128"  # of the checksum in a KvRef: it stands for the header, which holds the payload's


class Header(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a state. Unknown fields of later versions are passed over."""

    fingerprint: Fingerprint
    tokens: bytes  # ids of the sequence, little-endian int32
    layout: int  # of the payload: LLAMA_KV, whose parts are known and checked, or OPAQUE
    logits: bytes = b""  # of the token after the last one, little-endian float32; empty where they were not at hand
    made_ns: int | None = None  # unix nanoseconds
    details: dict[str, Any] = msgspec.field(default_factory=dict)  # the writer's own

    @property
    def count(self) -> int:
        """The number of tokens."""
        return len(self.tokens) // 4


class Start(msgspec.Struct, frozen=True):
    """The fixed first bytes, decoded."""

    header_size: int
    payload_offset: int
    payload_size: int
    payload_checksum: bytes
    header_checksum: bytes

    @property
    def size(self) -> int:
        """The bytes of the whole state."""
        return self.payload_offset + self.payload_size

    @property
    def reference(self) -> str:
        """What a KvRef calls this content."""
        return f"{KIND}:{self.header_checksum.hex()}"


def encode_header(header: Header) -> bytes:
    """Return a header as bytes; equal headers give equal bytes. Raises KvError for details that are no plain data."""
    try:
        encoded = msgspec.msgpack.encode(header)
        if header.details:  # what could be written but not read: keys that are no text
            msgspec.msgpack.decode(msgspec.msgpack.encode(header.details), type=dict[str, Any])
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise KvError(f"the details of a state cannot be written: {error}") from error
    if len(encoded) > MAX_HEADER:
        raise KvRefused(f"a header of {len(encoded)} bytes is more than the {MAX_HEADER} that a reader takes")
    return encoded


def payload_offset(encoded: bytes) -> int:
    """Return where the payload starts behind an encoded header."""
    return -(-(START_BYTES + len(encoded)) // PAGE) * PAGE


def finish(buffer: memoryview, encoded: bytes, payload_size: int, digest: bytes | None = None) -> Start:
    """Write start and header before a payload that already lies at `payload_offset(encoded)`; return the start.

    `digest` is the payload's checksum, where it is known.
    """
    offset = payload_offset(encoded)
    if digest is None:
        digest = checksum(buffer[offset : offset + payload_size])
    fixed = START.pack(MAGIC, VERSION, MSGPACK, len(encoded), offset, payload_size, digest)
    own = xxh3(fixed + encoded)
    body = fixed + own + encoded
    buffer[: len(body)] = body
    buffer[len(body) : offset] = bytes(offset - len(body))
    return Start(len(encoded), offset, payload_size, digest, own)


def read_start(buffer: memoryview, where: str = "these bytes") -> tuple[Start, Header]:
    """Return the start and the header of a state, both verified; the payload is not. Raises KvRefused.

    `buffer` may be longer than the state: a segment is rounded up to pages.
    """
    if buffer.nbytes < START_BYTES:
        raise KvRefused(f"{where}: {buffer.nbytes} bytes are no KV state, which has {START_BYTES} before its header")
    magic, version, encoding, header_size, offset, size, digest = START.unpack_from(buffer)
    if magic != MAGIC:
        raise KvRefused(f"{where}: no KV state of ours, it does not begin with {MAGIC[:7].decode()}")
    if version != VERSION or encoding != MSGPACK:
        raise KvRefused(
            f"{where}: format {version}.{encoding} is not read here, only {VERSION}.{MSGPACK}: upgrade, or export it again"
        )
    if header_size > MAX_HEADER or START_BYTES + header_size > buffer.nbytes:
        raise KvRefused(f"{where}: cut off, or no state: a header of {header_size} bytes in {buffer.nbytes}")
    own = bytes(buffer[START.size : START_BYTES])
    encoded = bytes(buffer[START_BYTES : START_BYTES + header_size])
    if xxh3(bytes(buffer[: START.size]) + encoded) != own:
        raise KvRefused(f"{where}: the header's checksum does not fit: it was changed or cut off; export it again")
    if offset != payload_offset(encoded) or offset + size > buffer.nbytes:
        raise KvRefused(
            f"{where}: cut off: the payload should be bytes {offset} to {offset + size}, there are {buffer.nbytes}"
        )
    if any(buffer[START_BYTES + header_size : offset]):
        raise KvRefused(f"{where}: there should be zeros between header and payload: it was changed; export it again")
    try:
        header = msgspec.msgpack.decode(encoded, type=Header)
    except (msgspec.DecodeError, RecursionError) as error:
        raise KvRefused(f"{where}: its header is none: {' '.join(str(error).split())[:200]}") from error
    if len(header.tokens) % 4 or len(header.logits) % 4 or not header.tokens:
        raise KvRefused(f"{where}: its header holds no whole tokens")
    return Start(header_size, offset, size, digest, own), header


def verify_payload(buffer: memoryview, start: Start, where: str = "these bytes") -> memoryview:
    """Return the payload, whose checksum fits. Raises KvRefused where it does not."""
    payload = buffer[start.payload_offset : start.size]
    if checksum(payload) != start.payload_checksum:
        raise KvRefused(f"{where}: the payload's checksum does not fit: it was changed since; export it again")
    return payload


def pack_tokens(tokens: Any) -> bytes:
    """Return token ids as a header holds them."""
    return np.ascontiguousarray(tokens, dtype="<i4").tobytes()


def unpack(data: bytes, kind: str) -> "np.ndarray[Any, Any]":
    """Return a header's vector (`<i4` tokens, `<f4` logits) as an array, read-only."""
    return np.frombuffer(data, dtype=kind)
