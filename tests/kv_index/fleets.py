"""Histories of fleets that could be: our own workers and those of another engine, drawn at random, and what is true then."""

from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import msgspec

from morphogen.consumers.kv_index import VllmFeed
from morphogen.schemas import Event
from morphogen.schemas.kv import (
    FILE,
    KvEvicted,
    KvExported,
    KvImported,
    KvRef,
    KvReleased,
    block_hashes,
    pack_hashes,
)

from .publishers import Dialect

BLOCK, PIECE = 4, 2  # tokens of a block of ours, and of the other engine's
ROOTS = ("a" * 64, "b" * 64)
MODEL = "llama"
REF = KvRef(transport="disk", place="/tmp/state", size=10)
TEXTS = [[1] * 40, [1] * 12 + [2] * 28, [1] * 4 + [3] * 36, [4] * 40]

Place = tuple[str | None, str, str]  # engine, worker, tier


@dataclass
class Truth:
    """The slow way: for every place the sets of prefixes it has, as tokens; what a lookup must find."""

    states: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    places: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    foreign: dict[Place, set[tuple[int, ...]]] = field(default_factory=dict)

    def depths(self, tokens: list[int], root: str) -> dict[Place, int]:
        """Return how many leading blocks each place has."""
        found: dict[Place, int] = {}
        own = root in ROOTS
        size = BLOCK if own else PIECE
        for place, prefixes in self._prefixes(root).items():
            depth = 0
            while (depth + 1) * size <= len(tokens) and tuple(tokens[: (depth + 1) * size]) in prefixes:
                depth += 1
            if depth:
                found[place] = depth
        return found

    def _prefixes(self, root: str) -> dict[Place, set[tuple[int, ...]]]:
        if root not in ROOTS:
            return self.foreign
        found: dict[Place, set[tuple[int, ...]]] = {}
        for state, (of, tokens) in self.states.items():
            for worker, tier in self.places.get(state, ()):
                if of == root:
                    have = found.setdefault((None, worker, tier), set())
                    have.update(tokens[:end] for end in range(BLOCK, len(tokens) + 1, BLOCK))
        return found


WORKERS, TIERS = ("w1", "w2"), ("device", "memory", "disk")
OWN = st.tuples(
    st.sampled_from(["exported", "imported", "released", "evicted"]),
    st.sampled_from(["s1", "s2", "s3", "s4"]), st.sampled_from(WORKERS), st.sampled_from([*TIERS, FILE]),
    st.sampled_from([*TIERS, None]), st.integers(0, 3), st.integers(0, 40), st.sampled_from(ROOTS),
)  # fmt: skip
FOREIGN = st.tuples(
    st.sampled_from(["stored", "stored", "stored", "removed", "cleared"]),
    st.sampled_from(["e1", "e2"]), st.sampled_from(["GPU", "CPU"]), st.integers(0, 3), st.integers(0, 19), st.integers(1, 20),
)  # fmt: skip
HISTORIES = st.lists(st.one_of(OWN, FOREIGN), max_size=30)
PROMPTS = st.tuples(st.integers(0, 3), st.integers(0, 40), st.lists(st.integers(1, 4), max_size=6))


def prompt(drawn: Any) -> list[int]:
    text, length, more = drawn
    return [*TEXTS[text][:length], *more]


def history(moves: list[Any]) -> tuple[list[Event], Truth]:
    """Return what happened as events, and what is true at its end."""
    events: list[Event] = []
    truth = Truth()
    feeds = {name: VllmFeed("fleet", name, MODEL) for name in ("e1", "e2")}
    dialect = Dialect()
    numbers = dict.fromkeys(feeds, 0)
    for move in moves:
        if len(move) == 8:
            events += _own(truth, *move)
            continue
        kind, worker, medium, text, start, count = move
        told = _foreign(truth, dialect, kind, worker, medium, text, start, count)
        if told is not None:
            events += feeds[worker].message(numbers[worker], dialect.payload(told))
            numbers[worker] += 1
    return events, truth


def _own(
    truth: Truth, kind: str, state: str, worker: str, tier: str, to: str | None, text: int, length: int, root: str
) -> list[Event]:
    known = truth.states.get(state)
    tokens = tuple(TEXTS[text][:length])
    if kind in ("exported", "imported"):
        root, tokens = known or (root, tokens)  # a state never changes
        where = tier if kind == "exported" else "device"
        truth.states[state] = (root, tokens)
        if where != FILE:
            truth.places.setdefault(state, set()).add((worker, where))
        blocks = pack_hashes(block_hashes(tokens, root, BLOCK))
        common: dict[str, Any] = {
            "state": state, "worker": worker, "tokens": len(tokens), "size": 10, "tier": tier, "transport": "disk", "root": root,
            "block": BLOCK, "blocks": blocks,
        }  # fmt: skip
        return [KvExported(ref=REF, **common) if kind == "exported" else KvImported(**common)]
    here = truth.places.get(state, set())
    if kind == "released":
        here.discard((worker, tier))
        gone: Event = KvReleased(state=state, worker=worker, tier=tier, reason="dropped")
    else:
        if (worker, tier) not in here:
            return []
        if to is not None:
            here.add((worker, to))
        if to != tier:
            here.discard((worker, tier))
        gone = KvEvicted(state=state, worker=worker, from_tier=tier, to_tier=to, size=10, reason="budget")
    if not here:
        truth.states.pop(state, None)
    return [gone]


def _foreign(
    truth: Truth, dialect: Dialect, kind: str, worker: str, medium: str, text: int, start: int, count: int
) -> msgspec.Struct | None:
    tier = {"GPU": "device", "CPU": "memory"}[medium]
    places = truth.foreign
    if kind == "cleared":
        for place in [place for place in places if place[1] == worker]:
            del places[place]
        return dialect.cleared()
    tokens = TEXTS[text]
    stop = min(start + count, len(tokens) // PIECE)
    prefixes = [tuple(tokens[: PIECE * (at + 1)]) for at in range(start, stop)]
    if not prefixes:
        return None
    names = [name_of(prefix) for prefix in prefixes]
    have = places.setdefault(("fleet", worker, tier), set())
    if kind == "removed":
        have.difference_update(prefixes)
        return dialect.removed(names, medium=medium)
    parent = None if start == 0 else name_of(tuple(tokens[: PIECE * start]))
    everywhere = set().union(*(found for place, found in places.items() if place[1] == worker))
    if parent is not None and tuple(tokens[: PIECE * start]) not in everywhere:
        return None  # an engine has the block before
    have.update(prefixes)
    return dialect.stored(names, tokens[PIECE * start : PIECE * stop], PIECE, parent=parent, medium=medium)


def name_of(prefix: tuple[int, ...]) -> int:
    """Return the engine's own hash of a block: of all tokens up to it."""
    return hash(prefix) % 2**64
