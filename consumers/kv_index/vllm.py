"""vLLM's KV events, as its publisher writes them, as events of ours.

A message is a msgpack `KVEventBatch`: (ts, events, data_parallel_rank). vLLM's structs have travelled as arrays and as
maps, batch and events each in their own way, and have grown at their ends; SGLang writes the same. All of these are read:

    BlockStored   block_hashes, parent_block_hash, token_ids, block_size, lora_id, medium, lora_name, extra_keys,
                  group_idx, kv_cache_spec_kind, kv_cache_spec_sliding_window, ...
    BlockRemoved  block_hashes, medium, group_idx, ...
    AllBlocksCleared

An array has them in this order after its tag; a map has the tag as `type`. Fields that come later are passed over.
Hashes are integers of 64 bits, or the bytes of a sha256. Source: vllm/distributed/kv_events.py (0.9 to 0.16) and
Dynamo's notes on the positional form.

A model with several groups of caches (sliding windows beside full attention) tells of each group; a prefix is here
where the group that sees everything has it, so the others are passed over and counted.
"""

from typing import Any

import msgspec

from morphogen.schemas import Event
from morphogen.schemas.kv import KvBlocksCleared, KvBlocksRemoved, KvBlocksStored

from .errors import BadPayload
from .wire import field, hash_list, hash_text, integer, text_or_none, unpack

DIALECT = "vllm"
MOST_EVENTS = 1 << 16  # of one batch
MOST_RANKS = 1 << 10  # of one publisher
_GROUP_AT = {"BlockStored": 9, "BlockRemoved": 3}
_WHOLE = ("full_attention", "mla_attention", "full", "mla")


class Batch(msgspec.Struct, frozen=True):
    """The events of one message, those left out counted; `extras` has, by event, what else its blocks depend on."""

    events: tuple[Event, ...]
    passed_over: int = 0
    extras: dict[int, list[bytes | None]] = {}


class Groups:
    """Which group of caches sees the whole prefix: the first one that says so, else the one without a number or of 0."""

    def __init__(self) -> None:
        self._whole: int | None = None

    def takes(self, one: Any, kind: str) -> bool:
        """Tell whether an event is of that group; only stored blocks say what a group is."""
        group = field(one, ("group_idx",), _GROUP_AT.get(kind))
        if not isinstance(group, int) or isinstance(group, bool):
            return True
        spec = field(one, ("kv_cache_spec_kind",), 10) if kind == "BlockStored" else None
        if isinstance(spec, str):
            if spec.lower() not in _WHOLE:
                return False
            if self._whole is None:
                self._whole = group
        return group == (self._whole or 0)


def read_batch(
    payload: bytes,
    *,
    engine: str,
    worker: str,
    model: str | None = None,
    number: int | None = None,
    groups: Groups | None = None,
) -> Batch:
    """Return the events of one message. Raises BadPayload for what is not a batch of this dialect.

    `groups` is what was learned of the same publisher's groups of caches, and learns.
    A rank of data parallelism above 0 is a worker of its own, `<worker>/dp<rank>`.
    """
    document = unpack(payload)
    if not isinstance(document, list | dict):
        raise BadPayload("a batch is an array or a map")
    told = field(document, ("events",), 1)
    if not isinstance(told, list) or len(told) > MOST_EVENTS:
        raise BadPayload("a batch has a list of events")
    rank = field(document, ("data_parallel_rank", "dp_rank"), 2)
    name = worker if rank in (None, 0) else f"{worker}/dp{integer(rank, 'data_parallel_rank', 0, MOST_RANKS - 1)}"
    common: dict[str, Any] = {"engine": engine, "dialect": DIALECT, "worker": name, "event_id": number}
    groups = groups or Groups()
    events: list[Event] = []
    extras: dict[int, list[bytes | None]] = {}
    passed = 0
    for one in told:
        kind = _kind(one)
        if kind == "AllBlocksCleared":
            events.append(KvBlocksCleared(**common))
        elif not groups.takes(one, kind):
            passed += 1
        elif kind == "BlockStored":
            stored, extra = _stored(one, common, model)
            if any(extra):
                extras[len(events)] = extra
            events.append(stored)
        elif kind == "BlockRemoved":
            hashes = hash_list(field(one, ("block_hashes",), 1), "block_hashes")
            medium = text_or_none(field(one, ("medium",), 2), "medium")
            events.append(KvBlocksRemoved(block_hashes=hashes, medium=medium, **common))
        else:
            passed += 1  # a kind of a later version
    return Batch(tuple(events), passed, extras)


def _kind(one: Any) -> str:
    if isinstance(one, dict):
        kind = one.get("type")
    elif isinstance(one, list) and one:
        kind = one[0]
    else:
        kind = None
    if not isinstance(kind, str):
        raise BadPayload("an event says its type, as `type` or as its first element")
    return kind


def _stored(one: Any, common: dict[str, Any], model: str | None) -> tuple[KvBlocksStored, list[bytes | None]]:
    hashes = hash_list(field(one, ("block_hashes",), 1), "block_hashes")
    parent = field(one, ("parent_block_hash",), 2)
    tokens = _tokens(field(one, ("token_ids",), 3))
    size = _block_size(field(one, ("block_size", "num_toks_per_block"), 4))
    lora = text_or_none(field(one, ("lora_name",), 7), "lora_name")
    number = field(one, ("lora_id",), 5)
    if lora is None and isinstance(number, int) and not isinstance(number, bool) and number:
        lora = f"#{number}"
    fits = tokens is not None and len(tokens) == size * len(hashes) and len(hashes) > 0
    extra = _extras(one, len(hashes), lora)
    stored = KvBlocksStored(
        block_hashes=hashes,
        parent=None if parent is None else hash_text(parent, "parent_block_hash"),
        tokens=tokens if fits else None,
        block_size=size,
        lora=lora,
        medium=text_or_none(field(one, ("medium",), 6), "medium"),
        model=model,
        **common,
    )
    return stored, extra


def _tokens(value: Any) -> Any:
    """Return token ids as an array; None where blocks are told of by hash only, or by pairs of tokens."""
    import numpy as np

    if not isinstance(value, list):
        raise BadPayload("token_ids is no list")
    if not value or isinstance(value[0], list):
        return None
    try:
        found = np.array(value)
    except (ValueError, OverflowError) as error:
        raise BadPayload("token_ids are no integers") from error
    if found.ndim != 1 or found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= 2**31:
        raise BadPayload("token_ids are no integers of 31 bits")
    return found.astype("<i4")


def _block_size(value: Any) -> int:
    """Return the block size; the first versions told one of each block."""
    if isinstance(value, list):
        if len({one for one in value if isinstance(one, int)}) != 1 or not all(isinstance(one, int) for one in value):
            raise BadPayload("blocks of one event differ in size")
        value = value[0]
    return integer(value, "block_size", 1, 1 << 20)


def _extras(one: Any, blocks: int, lora: str | None) -> list[bytes | None]:
    """Return, for each block, what its content depends on beside tokens and adapter, as bytes; None for nothing else."""
    keys = field(one, ("extra_keys",), 8)
    salt = field(one, ("cache_salt",), None)
    found: list[bytes | None] = [None] * blocks
    if isinstance(keys, list):
        for at, key in enumerate(keys[:blocks]):
            rest = [item for item in key if item != lora] if isinstance(key, list) else key
            if rest:
                found[at] = msgspec.msgpack.encode(rest)
    if salt and blocks and found[0] is None:
        found[0] = msgspec.msgpack.encode(salt)
    return found
