"""`PrefixIndex`: who holds which prefix, in memory, folded from the same events as the tables.

    index = PrefixIndex()
    for event in events: index.take(event)
    match = index.longest_prefix(tokens)     # Match(blocks=12, tokens=768, holders=(...))

One dictionary from the hash of a block, which stands for all tokens before it, to a bit mask of holders. A lookup
hashes the prompt block by block and stops at the first one that nobody has who had all before it, so it costs what the
match is long, whatever the index holds. The low bits of a mask are the number of the block's world, that is its root and
block size, so that worlds of which nobody holds a block any more are forgotten. Pure: no clock, no I/O; the same events in
the same order give the same answers.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from morphogen.schemas import Event
from morphogen.schemas.kv import (
    FILE,
    KvBlocksCleared,
    KvBlocksRemoved,
    KvBlocksStored,
    KvEvicted,
    KvExported,
    KvGap,
    KvImported,
    KvReleased,
    tier_of,
)

from .chains import as_int32, check, placed, split, walk
from .holders import Held, Holder, Match, speed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_NOTHING = Match()
_STATES = 16  # named for one holder: any of them will do
_KEPT = 1 << 16  # masks shared before the memory of them is begun anew
_LOW = 48  # bits of a mask that are the number of a world; those above are holders
_NUMBER = (1 << _LOW) - 1

_World = tuple[str, int]  # root, tokens of a block


@dataclass(slots=True)
class _State:
    """One of our own states: its blocks, none where they are not known, and where it lies."""

    world: _World | None
    chain: list[bytes]
    alone: dict[str, None]  # its own id: what all its blocks that no other state has point at
    places: set[Holder] = field(default_factory=set)


@dataclass(slots=True)
class _Known:
    """A world that somebody holds blocks of."""

    world: _World
    number: int
    blocks: int = 0


class PrefixIndex:
    """The fold; `len` is the number of distinct blocks that somebody holds."""

    def __init__(self) -> None:
        self._masks: dict[bytes, int] = {}
        self._kept: dict[int, int] = {}  # one object for each mask: a million blocks share a few
        self._bits: dict[Holder, int] = {}
        self._holders: list[Holder] = []
        self._states: dict[str, _State] = {}
        self._in_states: dict[bytes, dict[str, None]] = {}  # the states that have a block, in the order of the log
        self._worlds: dict[_World, _Known] = {}
        self._numbered: dict[int, _Known] = {}
        self._last = 0  # number that was given to a world
        self._doubtful: set[tuple[str | None, str]] = set()
        self.unplaced = 0
        """Blocks that were told of without a chain, a root or a block size, so that no prompt can be matched with them."""

    def __len__(self) -> int:
        return len(self._masks)

    @property
    def holders(self) -> tuple[Holder, ...]:
        """All that were ever told of."""
        return tuple(self._holders)

    @property
    def roots(self) -> tuple[tuple[str, int], ...]:
        """The roots and block sizes of what is held, which a lookup without a root tries."""
        return tuple(self._worlds)

    # Folding

    def take(self, event: Event) -> None:
        """Fold one event; those that do not concern who holds what change nothing."""
        match event:
            case KvBlocksStored():
                self._stored(event)
            case KvBlocksRemoved():
                self._clear_bit(split(event.hashes), Holder(
                    worker=event.worker, tier=tier_of(event.medium), engine=event.engine))  # fmt: skip
            case KvBlocksCleared():
                self._forget_worker(event.engine, event.worker)
            case KvGap():
                self._doubtful.add((event.engine, event.worker))
            case KvExported() if event.tier != FILE:
                self._know(event.state, event.root, event.block, event.blocks)
                self._place(event.state, Holder(worker=event.worker, tier=event.tier))
            case KvImported():
                self._know(event.state, event.root, event.block, event.blocks)
                self._place(event.state, Holder(worker=event.worker, tier="device"))
            case KvEvicted():
                if event.to_tier is not None:
                    self._place(event.state, Holder(worker=event.worker, tier=event.to_tier))
                if event.to_tier != event.from_tier:
                    self._displace(event.state, Holder(worker=event.worker, tier=event.from_tier))
            case KvReleased():
                self._displace(event.state, Holder(worker=event.worker, tier=event.tier))

    def _stored(self, event: KvBlocksStored) -> None:
        keys = split(event.hashes)
        if len(keys) != len(event.block_hashes) or not placed(event.root, event.block_size):
            self.unplaced += len(event.block_hashes)
            return
        assert event.root is not None
        assert event.block_size is not None
        holder = Holder(worker=event.worker, tier=tier_of(event.medium), engine=event.engine)
        self._set_bit(keys, holder, (event.root, event.block_size))

    def _know(self, state: str, root: str, block: int, blocks: bytes) -> None:
        """Remember the chain of a state; told another one, it is that from now on, where it lies; told none, it keeps it."""
        chain, world = list(dict.fromkeys(split(blocks))), (root, block)
        if not chain:
            return
        if not placed(root, block):
            self.unplaced += len(chain)
            return
        before = self._states.get(state)
        if before is not None:
            if (before.world, before.chain) == (world, chain):
                return
            places = set(before.places)
            for holder in places:
                self._displace(state, holder)
        found = self._states[state] = _State(world, chain, {state: None})
        others = self._in_states
        for key in chain:
            names = others.setdefault(key, found.alone)
            if names is found.alone:
                continue
            if len(names) == 1:  # so far the dictionary that another state shares among its blocks
                names = others[key] = dict(names)
            names[state] = None
        if before is not None:
            for holder in places:
                self._place(state, holder)

    def _place(self, state: str, holder: Holder) -> None:
        found = self._states.get(state)
        if found is None:
            found = self._states[state] = _State(None, [], {state: None})
        if holder not in found.places:
            found.places.add(holder)
            if found.world is not None:
                self._set_bit(found.chain, holder, found.world)

    def _displace(self, state: str, holder: Holder) -> None:
        found = self._states.get(state)
        if found is None or holder not in found.places:
            return
        found.places.discard(holder)
        others = self._in_states
        free = [key for key in found.chain if not self._elsewhere(others[key], state, holder)]
        self._clear_bit(free, holder)
        if found.places:
            return
        del self._states[state]
        for key in found.chain:
            names = others[key]
            if names is found.alone:
                del others[key]
                continue
            names.pop(state, None)
            if not names:
                del others[key]

    def _elsewhere(self, names: Iterable[str], state: str, holder: Holder) -> bool:
        return any(name != state and holder in self._states[name].places for name in names)

    def _bit(self, holder: Holder) -> int:
        at = self._bits.get(holder)
        if at is None:
            at = self._bits[holder] = len(self._holders)
            self._holders.append(holder)
        return 1 << at + _LOW

    def _shared(self) -> dict[int, int]:
        if len(self._kept) > _KEPT:
            self._kept = {}
        return self._kept

    def _set_bit(self, keys: Iterable[bytes], holder: Holder, world: _World) -> None:
        masks, kept, bit = self._masks, self._shared(), self._bit(holder)
        known, before = self._worlds.get(world), len(self._masks)
        number = self._last + 1 if known is None else known.number
        for key in keys:
            mask = masks.get(key, number) | bit
            masks[key] = kept.setdefault(mask, mask)
        new = len(masks) - before
        if known is None and new:
            known = self._worlds[world] = self._numbered[number] = _Known(world, number)
            self._last = number
        if known is not None:
            known.blocks += new

    def _clear_bit(self, keys: Iterable[bytes], holder: Holder) -> None:
        if holder not in self._bits:
            return
        masks, kept, bit = self._masks, self._shared(), self._bit(holder)
        gone: dict[int, int] = {}
        for key in keys:
            mask = masks.get(key, 0)
            if not mask & bit:
                continue
            mask ^= bit
            if mask > _NUMBER:
                masks[key] = kept.setdefault(mask, mask)
            else:
                del masks[key]
                gone[mask] = gone.get(mask, 0) + 1
        self._shed(gone)

    def _shed(self, gone: Mapping[int, int]) -> None:
        """Count off, by number, blocks of worlds that nobody holds any more."""
        for number, blocks in gone.items():
            known = self._numbered[number]
            known.blocks -= blocks
            if not known.blocks:
                del self._worlds[known.world], self._numbered[number]

    def _forget_worker(self, engine: str, worker: str) -> None:
        """Take a worker of another engine out of every block; what was doubtful of it is certain again: nothing."""
        gone = 0
        for holder, at in self._bits.items():
            if (holder.engine, holder.worker) == (engine, worker):
                gone |= 1 << at + _LOW
        self._doubtful.discard((engine, worker))
        if not gone:
            return
        counts = Counter(self._masks.values())
        lefts = {mask: mask & ~gone for mask in counts}
        self._kept = {left: left for left in lefts.values() if left > _NUMBER}
        self._masks = {key: self._kept[left] for key, mask in self._masks.items() if (left := lefts[mask]) > _NUMBER}
        empty: Counter[int] = Counter()
        for mask, left in lefts.items():
            if left <= _NUMBER:
                empty[left] += counts[mask]
        self._shed(empty)

    # Looking up

    def longest_prefix(
        self,
        tokens: "Sequence[int] | npt.NDArray[Any] | bytes",
        *,
        root: str | None = None,
        block: int | None = None,
    ) -> Match:
        """Return the longest prefix of `tokens` (a list, an int32 array, or its bytes) that one holder has, and who.

        Without a `root` all that are known are tried: name one where only one model will do. Of two roots with equally
        long matches the one that was told of first is answered. Raises BadQuestion.
        """
        check(root, block)
        ids = as_int32(tokens)
        best = _NOTHING
        for name, size in self._asked(root, block):
            if len(ids) // size * size <= best.tokens:
                continue  # it could not be longer
            found = self._search(ids, name, size)
            if found.tokens > best.tokens:
                best = found
        return best

    def _asked(self, root: str | None, block: int | None) -> Iterator[tuple[str, int]]:
        if root is not None and block is not None:
            return iter([(root, block)])
        return ((name, size) for name, size in self._worlds if root in (None, name) and block in (None, size))

    def _search(self, ids: "npt.NDArray[np.int32]", root: str, block: int) -> Match:
        masks = self._masks
        alive, depth, last = -1 << _LOW, 0, b""
        left: list[tuple[int, int, bytes]] = []  # (bits of holders, the blocks that they have, the last one's hash)
        for key in walk(ids, root, block):
            now = alive & masks.get(key, 0)
            if now != alive:
                if depth:
                    left.append((alive & ~now, depth, last))
                if not now:
                    break
                alive = now
            depth += 1
            last = key
        else:
            if depth:
                left.append((alive, depth, last))
        if not left:
            return _NOTHING
        whole, *rest = [self._held(*one, block=block) for one in reversed(left)]
        return Match(
            blocks=depth, tokens=depth * block, block=block, root=root, holders=whole,
            shorter=tuple(held for group in rest for held in group),
        )  # fmt: skip

    def _held(self, bits: int, blocks: int, last: bytes, *, block: int) -> tuple[Held, ...]:
        names = self._in_states.get(last, {})
        found = []
        while bits:
            at = bits.bit_length() - 1
            bits ^= 1 << at
            holder = self._holders[at - _LOW]
            here = () if holder.engine else (n for n in names if holder in self._states[n].places)
            states = tuple(islice(here, _STATES))
            found.append(
                Held(holder=holder, blocks=blocks, tokens=blocks * block, states=states,
                     doubtful=(holder.engine, holder.worker) in self._doubtful)
            )  # fmt: skip
        return tuple(sorted(found, key=lambda held: speed(held.holder)))
