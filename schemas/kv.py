"""The cache of a language model's attention (KV) as something that can be named, checked, moved and counted.

A *KV state* is the cache of one sequence, its token ids and a fingerprint of all that gives its bytes a meaning. A
`KvRef` says where the bytes are. A prefix is known by a chain of hashes over blocks of tokens, so that who holds it can
be looked up without its text. What was not measured is None, never 0; durations are nanoseconds, sizes are bytes.
"""

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from .event import Event
from .names import token
from .values import Vector

if TYPE_CHECKING:
    import numpy.typing as npt

BLOCK = 64  # tokens
HASH_BYTES = 16
TIERS = ("device", "memory", "disk", "blobs")  # from the fastest to the largest
FILE = "file"  # in place of a tier: a file that a user had written, which is the user's to keep
TRANSPORTS = ("same_process", "shared_memory", "disk", "ipc", "blobs")
_MEDIA = {
    "gpu": "device", "device": "device", "hbm": "device",
    "cpu": "memory", "cpu_pinned": "memory", "cpu_tier1": "memory", "host_pinned": "memory", "host": "memory", "shm": "memory",
    "cpu_tier2": "disk", "disk": "disk", "nvme": "disk", "storage": "disk",
    "external": "blobs", "network": "blobs", "remote": "blobs", "shared": "blobs",
}  # fmt: skip
EXPORT, HANDOFF, DROP = "kv.export", "kv.handoff", "kv.drop"  # names of commands

Scalar = str | int | float | bool | None


class KvRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the bytes of a KV state are. Plain data: it goes into events and over the bus.

    `place` is the name of a segment, the path of a file, the sha256 of a blob, or an address of the transport's own.
    `checksum` is of the `size` bytes from `offset`, in hex, after the name of its kind: `xxh3-128:...`.
    """

    transport: str  # of TRANSPORTS
    place: str
    size: int
    offset: int = 0
    checksum: str | None = None
    lease: str | None = None  # whoever opens the bytes holds it meanwhile
    host: str | None = None  # the machine, where the place means nothing elsewhere
    expires: int | None = None  # unix nanoseconds
    details: dict[str, Any] = msgspec.field(default_factory=dict)  # what else this transport needs


class Lora(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that was at work: sha256 of its file, and its scale."""

    sha256: str
    scale: float = 1.0


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """All that must be equal for the bytes of a KV state to mean the same in two contexts."""

    engine: str  # llama.cpp | torch
    build: str  # of the library
    state_version: int  # of the library's own format of a sequence
    weights: str  # sha256 of the model's file or tensors
    arch: str
    vocab: str  # sha256 of the vocabulary
    type_k: str
    type_v: str
    layers: int
    heads_kv: int
    head_dim: int
    v_transposed: bool = False  # true without flash attention
    rope: dict[str, Scalar] = msgspec.field(default_factory=dict)  # type, base, scale, yarn's factors, by name
    swa: dict[str, Scalar] = msgspec.field(default_factory=dict)  # window, full cache or not, by name
    loras: tuple[Lora, ...] = ()
    extra: dict[str, Scalar] = msgspec.field(default_factory=dict)  # what else the engine depends on

    @property
    def digest(self) -> str:
        """The sha256 of all fields, in hex: equal if and only if the fingerprints are."""
        pairs = [[name, value] for name, value in _leaves(self)]
        return hashlib.sha256(msgspec.msgpack.encode(pairs)).hexdigest()


def differences(expected: Fingerprint, actual: Fingerprint) -> tuple[tuple[str, Scalar, Scalar], ...]:
    """Return what differs, as (field, expected, actual); nested fields are named such as `rope.base`, `loras.0.scale`.

    None stands for a field that one of the two lacks.
    """
    left, right = dict(_leaves(expected)), dict(_leaves(actual))
    names = [*left, *(name for name in right if name not in left)]
    return tuple(
        (name, left.get(name), right.get(name))
        for name in names
        if _key(left.get(name)) != _key(right.get(name)) or (name in left) != (name in right)
    )


def _leaves(fingerprint: Fingerprint) -> "Iterator[tuple[str, Scalar]]":
    for name in fingerprint.__struct_fields__:
        value = getattr(fingerprint, name)
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", value[key]) for key in sorted(value))
        elif isinstance(value, tuple):
            for index, lora in enumerate(value):
                yield f"{name}.{index}.sha256", lora.sha256
                yield f"{name}.{index}.scale", lora.scale
        else:
            yield name, value


def _key(value: Scalar) -> tuple[str, bytes]:
    """Return what two values are compared by: 1, 1.0 and True are three, and NaN equals itself."""
    return type(value).__name__, msgspec.msgpack.encode(value)


def block_hashes(
    tokens: "Sequence[int] | npt.NDArray[Any]", root: str, block: int = BLOCK, *, upto: int | None = None
) -> list[str]:
    """Return a hash for each full block of `tokens`, each over all before it: 32 hex digits.

    hash[i] = sha256(prev || the block as little-endian int32), its first 16 bytes; prev is `root` (the digest of a
    fingerprint, or whatever tells two worlds apart) as UTF-8 for the first block, the 16 bytes of hash[i-1] after it.
    `upto` bounds the number of blocks. Raises ValueError for a block that holds nothing.
    """
    return [digest.hex() for digest in chain(tokens, root.encode(), block, upto=upto)]


def chain(
    tokens: "Sequence[int] | npt.NDArray[Any]", before: bytes, block: int = BLOCK, *, upto: int | None = None
) -> Iterator[bytes]:
    """Yield the hashes of full blocks as bytes, one by one; `before` is what the first is chained to."""
    if block < 1:
        raise ValueError(f"a block holds at least one token, not {block}")
    count = len(tokens) // block
    count = count if upto is None else min(count, max(0, upto))
    data = _int32(tokens[: count * block])
    width = 4 * block
    for start in range(0, count * width, width):
        before = hashlib.sha256(before + data[start : start + width]).digest()[:HASH_BYTES]
        yield before


def _int32(tokens: "Sequence[int] | npt.NDArray[Any]") -> bytes:
    if hasattr(tokens, "astype"):
        return bytes(tokens.astype("<i4", copy=False).tobytes())
    return struct.pack(f"<{len(tokens)}i", *tokens)


def pack_hashes(hashes: Sequence[str]) -> bytes:
    """Return hashes as an event carries them: 16 bytes each, one after the other."""
    return bytes.fromhex("".join(hashes))


def unpack_hashes(packed: bytes) -> list[str]:
    """Return the hashes of `pack_hashes`."""
    return [packed[at : at + HASH_BYTES].hex() for at in range(0, len(packed), HASH_BYTES)]


def tier_of(medium: str | None) -> str:
    """Return the tier that another engine's word for a medium means; an unknown word stands for itself.

    An engine that says nothing means the device.
    """
    return "device" if not medium else _MEDIA.get(medium.lower(), medium.lower())


def worker_target(worker: str) -> str:
    """Return the target of commands for a worker."""
    return f"kv.{worker}"


def worker_subject(worker: str, request: str) -> str:
    """Return the subject on which a worker answers `info`, `offer`, `generate`, ..."""
    return f"morphogen.kv.{token(worker)}.{request}"


class ExportArgs(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments of command `kv.export`: write the state of a session to a tier, or to a file at `path`."""

    session: str
    tier: str = "disk"  # memory | disk | blobs
    path: str | None = None
    pin: bool = False  # keep it whatever the budget says


class HandoffArgs(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments of command `kv.handoff`: give a session to the worker `to`, which goes on where it stands."""

    session: str
    to: str
    rename: str | None = None  # what it is called there; needed where `to` is the worker itself
    keep: bool = False  # a copy: the session goes on here as well
    transport: str | None = None  # chosen by where the two ends are unless one is asked for
    ttl: float = 30.0  # seconds after which an offer that was not taken up is void


class DropArgs(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments of command `kv.drop`: forget a session, or one stored state."""

    session: str | None = None
    state: str | None = None


class KvExported(Event, type="kv.exported", version=1):
    """The cache of a sequence was written out of a context, and is now `state`."""

    state: str
    worker: str
    tokens: int
    size: int
    tier: str  # of TIERS, or FILE
    transport: str
    ref: KvRef
    root: str  # the fingerprint's digest, which the chain of hashes starts from
    session: str | None = None
    fingerprint: Fingerprint | None = None
    model: str | None = None  # a name for people
    block: int = BLOCK
    blocks: bytes = b""  # the chain, as `unpack_hashes` reads it
    pinned: bool = False
    duration_ns: int | None = None


class KvOffered(Event, type="kv.offered", version=1):
    """A worker offers a state to another one, which may open it until `expires`."""

    state: str
    worker: str
    to: str
    tokens: int
    size: int
    transport: str
    ref: KvRef
    root: str
    handoff: str | None = None  # the command's id
    session: str | None = None
    expires: int | None = None  # unix nanoseconds


class KvAccepted(Event, type="kv.accepted", version=1):
    """A worker took an offer up, and begins to import."""

    state: str
    worker: str
    source: str
    transport: str
    handoff: str | None = None
    session: str | None = None


class KvImported(Event, type="kv.imported", version=1):
    """A state now lies in a context of `worker`: as if it had read the text itself."""

    state: str
    worker: str
    tokens: int
    size: int
    tier: str  # where it came from
    transport: str
    root: str
    source: str | None = None  # the worker that it came from
    handoff: str | None = None
    session: str | None = None
    model: str | None = None
    block: int = BLOCK
    blocks: bytes = b""
    duration_ns: int | None = None  # of the transfer: from the first byte read to the context being ready
    first_token_ns: int | None = None  # from the offer's arrival to the first token here, where one was made


class KvRejected(Event, type="kv.rejected", version=1):
    """A state was not taken, and nothing was changed by it; or an offer was never answered."""

    state: str
    worker: str  # who says so
    reason: str
    source: str | None = None
    handoff: str | None = None
    session: str | None = None
    field: str | None = None  # of the fingerprint
    expected: Scalar = None
    actual: Scalar = None


class KvReleased(Event, type="kv.released", version=1):
    """The bytes of a state are gone from a place, or a sequence from a context."""

    state: str
    worker: str
    tier: str
    reason: str  # handed_off | dropped | expired | owner_died | closed | replaced
    size: int | None = None
    session: str | None = None


class KvEvicted(Event, type="kv.evicted", version=1):
    """A tier was over its budget: a state went to the next one, or away (`to_tier` None)."""

    state: str
    worker: str
    from_tier: str
    to_tier: str | None
    size: int
    reason: str  # budget | demand
    ref: KvRef | None = None  # where it is now
    session: str | None = None


class KvDecided(Event, type="kv.decided", version=1):
    """Restore a state, or compute it again: what the numbers said."""

    worker: str
    choice: str  # restore | recompute
    tokens: int
    size: int
    tier: str
    restore_ns: int
    recompute_ns: int
    bandwidth: float  # bytes a second out of that tier
    overhead_ns: int  # of one restore, whatever its size
    prefill_rate: float  # tokens a second
    reason: str = "faster"  # faster | unavailable | refused | forced
    state: str | None = None
    session: str | None = None


class SessionSaved(Event, type="session.saved", version=1):
    """The continuity of a session was written: messages, sampler, tokens, and where its KV state is."""

    session: str
    revision: int  # counts the records of its journal
    turns: int
    tokens: int
    journal: KvRef  # messages, sampler and tokens
    ref: KvRef | None = None  # the KV state
    state: str | None = None
    root: str | None = None
    worker: str | None = None
    pending: bool = False  # in the middle of a generation


class SessionLoaded(Event, type="session.loaded", version=1):
    """A session goes on here: how many of its tokens came out of a KV state, and how many were computed again.

    What was said here before the model read any of it is in neither.
    """

    session: str
    revision: int
    turns: int
    tokens: int
    restored: int
    recomputed: int
    worker: str | None = None
    pending: bool = False
    duration_ns: int | None = None


class SessionTurn(Event, type="session.turn", version=1):
    """A turn of a conversation ended."""

    session: str
    turn: int  # from 1
    role: str  # user | assistant | system
    tokens: int  # of this turn
    text: str | None = None  # None where it is longer than an event should be
    finish: str | None = None  # stop | length | eos | cancelled
    reused: int | None = None  # tokens of the prompt that were in the cache already
    seed: int | None = None
    worker: str | None = None
    duration_ns: int | None = None
    total: int | None = None  # tokens of the session now; None where an earlier version told of it
    revision: int | None = None  # counts the records of its journal


class KvBlocksStored(Event, type="kv.blocks_stored", version=1):
    """Another engine stored blocks of one chain. Hashes are the engine's own, as text."""

    engine: str  # a name for the fleet's member
    dialect: str  # vllm | dynamo
    worker: str
    block_hashes: list[str]
    parent: str | None = None  # hash of the block before the first
    tokens: Vector | None = None  # ids of all blocks, one after the other
    block_size: int | None = None
    lora: str | None = None
    medium: str | None = None
    model: str | None = None
    event_id: int | None = None  # the engine's own number
    hashes: bytes = b""  # our chain over the same blocks, where it is known (`unpack_hashes`)
    root: str | None = None  # what our chain starts from
    details: dict[str, Any] = msgspec.field(default_factory=dict)


class KvBlocksRemoved(Event, type="kv.blocks_removed", version=1):
    """Another engine let go of blocks."""

    engine: str
    dialect: str
    worker: str
    block_hashes: list[str]
    medium: str | None = None
    event_id: int | None = None
    hashes: bytes = b""
    details: dict[str, Any] = msgspec.field(default_factory=dict)


class KvBlocksCleared(Event, type="kv.blocks_cleared", version=1):
    """Another engine let go of all its blocks."""

    engine: str
    dialect: str
    worker: str
    event_id: int | None = None
    details: dict[str, Any] = msgspec.field(default_factory=dict)


class KvGap(Event, type="kv.gap", version=1):
    """Numbers of another engine's events are missing, and could not be had: what is known of it may be wrong."""

    engine: str
    dialect: str
    worker: str
    first: int  # the missing numbers, both ends included
    last: int
    reason: str
    received: int | None = None  # the number that showed it
