"""Chains of hashes over blocks of tokens: the one key under which blocks of all engines are comparable.

A chain begins at a *root*, a text that tells worlds apart whose blocks must never match: the digest of a fingerprint
for our own states, a name of the model for foreign engines. Most chains hash token ids (`schemas.block_hashes`). An
engine that tells only a hash of each block's tokens has chains over those hashes; their roots begin with `XXH3`, and a
lookup hashes its tokens the same way first.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from morphogen.schemas.kv import HASH_BYTES, chain

from .errors import BadQuestion, KvIndexError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

XXH3 = "xxh3:"
"""Prefix of roots whose chains are made of 64-bit XXH3 hashes of the blocks' tokens (as uint32, little-endian)."""

LARGEST_BLOCK = 2**31 - 1  # tokens
_SEED = 1337  # of Dynamo's block hashes
_WORD = 2**64


def root_of(model: str, lora: str | None = None, *, by_hash: bool = False) -> str:
    """Return the root of the blocks of a foreign engine: workers of one model and adapter share it."""
    name = f"model:{model}" + (f"|lora:{lora}" if lora else "")
    return f"{XXH3}{name}" if by_hash else name


def as_int32(tokens: "Sequence[int] | npt.NDArray[Any] | bytes") -> "npt.NDArray[np.int32]":
    """Return token ids as an int32 array; bytes are little-endian int32, other memory is what its format says.

    Raises BadQuestion for what is no list of such integers.
    """
    import numpy as np

    if isinstance(tokens, memoryview):
        kind = tokens.format
        try:
            tokens = tokens.tobytes() if kind in ("B", "b", "c") else np.asarray(tokens)
        except (ValueError, TypeError) as error:
            raise BadQuestion(f"memory of format {kind!r} holds no tokens: {error}") from error
    if isinstance(tokens, bytes | bytearray):
        if len(tokens) % 4:
            raise BadQuestion(f"{len(tokens)} bytes are no int32 token ids: give 4 bytes a token, little-endian")
        return np.frombuffer(tokens, "<i4")
    if isinstance(tokens, np.ndarray):
        if tokens.dtype == np.int32 and tokens.ndim == 1:
            return tokens
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise BadQuestion(
                f"tokens are a list of integers, not an array of {tokens.dtype} in {tokens.ndim} dimensions"
            )
        tokens = tokens.tolist()
    if isinstance(tokens, Set | Mapping):
        raise BadQuestion(f"tokens are a list of integers, not of type {type(tokens).__name__}, which has no order")
    try:
        ids = np.frombuffer(struct.pack(f"<{len(tokens)}i", *tokens), "<i4")
        flags = any(isinstance(tokens[at], bool) for at in np.flatnonzero((ids == 0) | (ids == 1)).tolist())
    except (struct.error, TypeError) as error:
        raise BadQuestion(f"tokens are integers of 32 bits: {error}") from error
    if flags:
        raise BadQuestion("tokens are integers, not booleans")
    return ids


def check(root: str | None, block: int | None) -> None:
    """Raise BadQuestion for what can be no root or no block size; None is for any."""
    if block is not None and (not isinstance(block, int) or isinstance(block, bool)):
        raise BadQuestion(f"a block size is an integer, not of type {type(block).__name__}")
    if block is not None and not 1 <= block <= LARGEST_BLOCK:
        raise BadQuestion(f"a block holds at least one token and at most {LARGEST_BLOCK:,}, not {str(block)[:40]}")
    if root is not None and not isinstance(root, str):
        raise BadQuestion(f"a root is a text, not of type {type(root).__name__}")
    try:
        (root or "").encode()
    except UnicodeEncodeError as error:
        raise BadQuestion(f"a root is a text that can be written as UTF-8: {error}") from error


def placed(root: str | None, block: int | None) -> bool:
    """Tell whether blocks of an event can be looked up: it says a root and a block size that can be."""
    try:
        check(root, block)
    except BadQuestion:
        return False
    return root is not None and block is not None


def walk(tokens: "npt.NDArray[np.int32]", root: str, block: int) -> Iterator[bytes]:
    """Yield the hash of each full block of `tokens` under a root, one by one, so that a reader may stop early."""
    if root.startswith(XXH3):
        return over_hashes(_token_hashes(tokens, block, _lora_of(root)), root.encode())
    return chain(tokens, root.encode(), block)


def over_hashes(hashes: Iterable[int], before: bytes) -> Iterator[bytes]:
    """Yield a chain over 64-bit hashes of blocks, as `schemas.kv.chain` yields one over tokens."""
    for value in hashes:
        before = hashlib.sha256(before + (value % _WORD).to_bytes(8, "little")).digest()[:HASH_BYTES]
        yield before


def with_extra(key: bytes, extra: bytes) -> bytes:
    """Return another key for a block whose content depends on more than its tokens (a salt, an image)."""
    return hashlib.sha256(key + b"|" + extra).digest()[:HASH_BYTES]


def split(packed: bytes) -> list[bytes]:
    """Return the hashes of a packed chain as bytes, one a block; a cut last one is left out."""
    return [packed[at : at + HASH_BYTES] for at in range(0, len(packed) - HASH_BYTES + 1, HASH_BYTES)]


def _token_hashes(tokens: "npt.NDArray[np.int32]", block: int, lora: str | None) -> Iterator[int]:
    try:
        import xxhash
    except ImportError:
        raise KvIndexError("prefixes that Dynamo tells of are matched by xxhash: pip install 'morphogen[kv]'") from None
    seed = _SEED
    if lora:
        seed = (seed + xxhash.xxh3_64_intdigest(lora.encode())) % _WORD
    data, width = tokens.tobytes(), 4 * block
    for start in range(0, len(data) - width + 1, width):
        yield xxhash.xxh3_64_intdigest(data[start : start + width], seed=seed)


def _lora_of(root: str) -> str | None:
    return root.partition("|lora:")[2] or None
