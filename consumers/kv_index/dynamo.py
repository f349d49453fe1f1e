"""Dynamo's KV events, as its workers put them on the event plane, as events of ours.

A `RouterEvent` is {worker_id, storage_tier, event: {event_id, data, dp_rank}}; `data` is one of
{"stored": {parent_hash, start_position, blocks: [{block_hash, tokens_hash}]}}, {"removed": {block_hashes}}, "cleared".
It travels as JSON, or as msgpack with names or positions, bare or in an `EventEnvelope`
{topic, publisher_id, sequence, published_at, payload}, which on ZMQ stands in a frame of a version byte and a length.
All of these are read. Sources: Dynamo's lib/kv-router/src/protocols.rs and lib/runtime/src/transports/event_plane.

Dynamo tells a hash of each block's tokens instead of the tokens: XXH3 of 64 bits, seed 1337, over uint32 ids. Blocks
are matched with prompts by those. `event_id` counts for each worker and rank.
"""

from typing import Any

import msgspec

from morphogen.schemas import Event
from morphogen.schemas.kv import KvBlocksCleared, KvBlocksRemoved, KvBlocksStored

from .errors import BadPayload
from .wire import MOST_BLOCKS, field, hash_list, hash_text, integer, unjson, unpack

DIALECT = "dynamo"
_FRAME = b"\x01"  # version of the frame around an envelope; then its length, 4 bytes, big-endian
_TIERS = {"device": None, "host_pinned": "host_pinned", "disk": "disk", "external": "external"}


class Told(msgspec.Struct, frozen=True):
    """One event, its number within its worker and rank, and, of stored blocks, the hashes of their tokens."""

    event: Event
    number: int
    token_hashes: tuple[int, ...] = ()


def read_message(payload: bytes, *, engine: str, block_size: int | None = None, model: str | None = None) -> list[Told]:
    """Return the events of one message, whichever way it was wrapped. Raises BadPayload."""
    document = _document(payload)
    if isinstance(document, list) and document and all(isinstance(one, dict) for one in document):
        return [_told(one, engine, block_size, model) for one in document]
    return [_told(document, engine, block_size, model)]


def _document(payload: bytes, depth: int = 0) -> Any:
    """Unwrap frame and envelope, and return what is in them as plain values."""
    if depth > 3:
        raise BadPayload("an envelope in an envelope in an envelope")
    if payload[:1] == _FRAME and len(payload) >= 5:
        length = int.from_bytes(payload[1:5], "big")
        if length != len(payload) - 5:
            raise BadPayload(f"a frame of {length} bytes in a message that has {len(payload) - 5} after its head")
        payload = payload[5:]
    found = unjson(payload) if payload[:1] in (b"{", b"[") else unpack(payload)
    inner = found.get("payload") if isinstance(found, dict) else None
    if isinstance(inner, list):
        try:
            inner = bytes(inner)
        except (ValueError, TypeError) as error:
            raise BadPayload("the payload of an envelope is no bytes") from error
    if isinstance(inner, bytes):
        return _document(inner, depth + 1)
    return found


def _told(document: Any, engine: str, block_size: int | None, model: str | None) -> Told:
    if not isinstance(document, list | dict):
        raise BadPayload("a router event is a map or an array")
    worker = integer(field(document, ("worker_id",), 0), "worker_id", 0, 2**64 - 1)
    event = _event_of(document)
    number = integer(field(event, ("event_id",), 0), "event_id", 0, 2**64 - 1)
    rank = integer(field(event, ("dp_rank",), 2, 0) or 0, "dp_rank", 0, 2**32 - 1)
    tier = _tier(document)
    name = f"{worker}/dp{rank}" if rank else str(worker)
    common: dict[str, Any] = {"engine": engine, "dialect": DIALECT, "worker": name, "event_id": number}
    data = field(event, ("data",), 1)
    kind, body = _variant(data)
    if kind == "cleared":
        return Told(KvBlocksCleared(**common), number)
    if kind == "removed":
        hashes = hash_list(field(body, ("block_hashes",), 0), "block_hashes")
        return Told(KvBlocksRemoved(block_hashes=hashes, medium=tier, **common), number)
    if kind != "stored":
        raise BadPayload(f"no kind of event that is known: {kind[:40]}")
    blocks = field(body, ("blocks",), 1 if len(body) == 2 else 2)  # older ones have no start_position between
    if not isinstance(blocks, list) or len(blocks) > MOST_BLOCKS:
        raise BadPayload("stored blocks are no list")
    if not all(isinstance(one, list | dict) for one in blocks):
        raise BadPayload("a stored block is a map or an array")
    parent = field(body, ("parent_hash",), 0)
    token_hashes = tuple(integer(field(one, ("tokens_hash",), 1), "tokens_hash", 0, 2**64 - 1) for one in blocks)
    extra = any(field(one, ("mm_extra_info",), 2) for one in blocks)
    stored = KvBlocksStored(
        block_hashes=[hash_text(field(one, ("block_hash",), 0), "block_hash") for one in blocks],
        parent=None if parent is None else hash_text(parent, "parent_hash"),
        block_size=block_size,
        medium=tier,
        model=model,
        details={"images": True} if extra else {},
        **common,
    )
    return Told(stored, number, token_hashes)


def _event_of(document: Any) -> Any:
    """Return the cache event of a router event; written by position it is the one element that is a struct."""
    if isinstance(document, dict):
        event = document.get("event")
    else:
        event = next((one for one in document[1:] if isinstance(one, list | dict)), None)
    if not isinstance(event, list | dict):
        raise BadPayload("a router event has a cache event")
    return event


def _tier(document: Any) -> str | None:
    tier = field(document, ("storage_tier",), 1)
    return _TIERS.get(tier, tier[:40]) if isinstance(tier, str) else None


def _variant(data: Any) -> tuple[str, Any]:
    """Return the name and the body of a tagged union: a text where it has no body, else a map of one entry."""
    if isinstance(data, str):
        return data.lower(), None
    if isinstance(data, dict) and len(data) == 1:
        ((name, body),) = data.items()
        if isinstance(name, str) and (isinstance(body, list | dict) or name.lower() == "cleared"):
            return name.lower(), body
    raise BadPayload("the data of a cache event is stored, removed or cleared")
