"""Our chain over the blocks of another engine: computed where tokens are told, remembered where only hashes are.

An engine's own hashes differ from worker to worker (vLLM seeds them at random), so they say nothing across a fleet. A
`Lineage` knows, for one worker, which block of the engine is which of ours. It is a fold: fed with the log's past of that
worker it stands where the process before it stood.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from morphogen.schemas import Event
from morphogen.schemas.kv import HASH_BYTES, KvBlocksCleared, KvBlocksRemoved, KvBlocksStored, chain, tier_of

from .chains import over_hashes, root_of, split, with_extra
from .errors import BadPayload

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LIMIT = 4_000_000  # blocks of one worker; beyond it blocks are told of without a chain
REMEMBERED = 200_000  # blocks that were let go of, which another medium may still be given
MEDIA = 16  # in which one worker's blocks may lie; in a further one they have no chain
LARGEST = 192 << 10  # bytes of one event, about; a longer chain is told in several
_RENAMED = {"reason": "its hash stands for another block now"}

_Tiers = tuple[str, ...]


class _Block(NamedTuple):
    key: bytes
    depth: int  # blocks up to and including this one
    root: str


class Lineage:
    """The blocks of one worker. `len` is how many it holds that have a chain.

    Several names may stand for one block of ours; it is let go of in a tier with the last of them there.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._blocks: dict[str, _Block] = {}
        self._tiers: dict[str, _Tiers] = {}
        self._named: dict[str, dict[bytes, int]] = {}  # by tier: how many names each block of ours has there
        self._gone: dict[str, _Block] = {}
        self._shared: dict[_Tiers, _Tiers] = {}  # one tuple for all that lie in the same tiers
        self._limit = limit

    def __len__(self) -> int:
        return len(self._blocks)

    def take(self, event: Event) -> None:
        """Fold an event of this worker's past, as it stands in the log."""
        if isinstance(event, KvBlocksStored):
            keys, depths = split(event.hashes), event.details.get("depths")
            if event.root is None or not isinstance(depths, list) or not all(type(depth) is int for depth in depths):
                return
            if len(keys) == len(event.block_hashes) == len(depths):
                tier = tier_of(event.medium)
                for name, key, depth in zip(event.block_hashes, keys, depths, strict=True):
                    self._hold(name, _Block(key, depth, event.root), tier)
        elif isinstance(event, KvBlocksRemoved):
            self._let_go(event.block_hashes, tier_of(event.medium))
        elif isinstance(event, KvBlocksCleared):
            self.clear()

    def stored(
        self, event: KvBlocksStored, *, token_hashes: Sequence[int] = (), extra: Sequence[bytes | None] = ()
    ) -> Iterator[KvBlocksStored | KvBlocksRemoved]:
        """Yield a stored event with our chain over its blocks; several where it is long, or known only in part.

        Names that stood for other blocks are let go of first. Raises BadPayload where one name stands for two blocks.
        """
        made = self._chained(event, token_hashes, extra)
        if not made:
            yield event
            return
        if len(set(zip(event.block_hashes, made, strict=True))) > len(set(event.block_hashes)):
            raise BadPayload("one event gives two blocks one hash")
        yield from self._renamed(event, made)
        tier, room = tier_of(event.medium), self._room(event)
        start, part = 0, list[_Block | None]()
        for at, (name, wanted) in enumerate(zip(event.block_hashes, made, strict=True)):
            block = wanted if wanted is not None and self._hold(name, wanted, tier) else None
            if part and (len(part) == room or (part[0] is None) != (block is None)):
                yield self._part(event, part, start)
                start, part = at, []
            part.append(block)
        yield self._part(event, part, start)

    def removed(self, event: KvBlocksRemoved) -> Iterator[KvBlocksRemoved]:
        """Yield a removed event with the blocks of ours that no name stands for any more; several where it names many."""
        room, tier = self._room(event), tier_of(event.medium)
        for start in range(0, max(1, len(event.block_hashes)), room):
            names = event.block_hashes[start : start + room]
            yield msgspec.structs.replace(event, block_hashes=names, hashes=b"".join(self._let_go(names, tier)))

    def clear(self) -> None:
        """Forget all: the worker holds nothing."""
        self._blocks.clear()
        self._tiers.clear()
        self._named.clear()
        self._gone.clear()
        self._shared.clear()

    def _renamed(self, event: KvBlocksStored, made: Sequence[_Block | None]) -> Iterator[KvBlocksRemoved]:
        """Let go, in every tier, of what the event's names stood for until now, where it is something else."""
        blocks = self._blocks
        old: dict[str, list[str]] = {}
        for name, block in zip(event.block_hashes, made, strict=True):
            before = blocks.get(name)
            if before is not None and block is not None and before.key != block.key:
                for tier in self._tiers[name]:
                    old.setdefault(tier, []).append(name)
        for tier, names in old.items():
            yield from self.removed(
                KvBlocksRemoved(
                    engine=event.engine, dialect=event.dialect, worker=event.worker, block_hashes=names, medium=tier,
                    event_id=event.event_id, details=_RENAMED,
                )
            )  # fmt: skip

    def _chained(
        self, event: KvBlocksStored, token_hashes: Sequence[int], extra: Sequence[bytes | None]
    ) -> list[_Block | None]:
        names = event.block_hashes
        computed = self._computed(event, token_hashes, extra)
        if computed is None:
            return [self._blocks.get(name) or self._gone.get(name) for name in names]
        return list(computed)

    def _computed(
        self, event: KvBlocksStored, token_hashes: Sequence[int], extra: Sequence[bytes | None]
    ) -> list[_Block] | None:
        """Return our blocks where tokens and the block before them are known."""
        by_hash = bool(token_hashes)
        size = event.block_size or 0
        tokens: npt.NDArray[np.int32] | None = event.tokens
        if not by_hash and (tokens is None or len(tokens) != size * len(event.block_hashes) or size < 1):
            return None
        if event.parent is None:
            root = root_of(event.model or event.engine, event.lora, by_hash=by_hash)
            before, depth = root.encode(), 0
        else:
            parent = self._blocks.get(event.parent) or self._gone.get(event.parent)
            if parent is None:
                return None
            before, depth, root = parent
        if by_hash:
            keys: Iterator[bytes] = over_hashes(token_hashes, before)
            return [_Block(key, depth + at, root) for at, key in enumerate(keys, 1)]
        assert tokens is not None
        if not any(extra):
            return [_Block(key, depth + at, root) for at, key in enumerate(chain(tokens, before, size), 1)]
        made = []
        for at in range(len(event.block_hashes)):
            (before,) = chain(tokens[at * size : (at + 1) * size], before, size)
            if at < len(extra) and (more := extra[at]) is not None:
                before = with_extra(before, more)
            made.append(_Block(before, depth + at + 1, root))
        return made

    def _part(self, event: KvBlocksStored, part: Sequence[_Block | None], start: int) -> KvBlocksStored:
        stop, size = start + len(part), event.block_size or 0
        found = [block for block in part if block is not None]
        tokens = None if event.tokens is None else event.tokens[start * size : stop * size]
        if tokens is not None and tokens.nbytes > 2 * LARGEST:
            tokens = None
        return msgspec.structs.replace(
            event,
            block_hashes=event.block_hashes[start:stop],
            parent=event.parent if start == 0 or event.tokens is None else event.block_hashes[start - 1],
            tokens=tokens,
            hashes=b"".join(block.key for block in found),
            root=found[0].root if found else None,
            details={**event.details, "depths": [block.depth for block in found]} if found else event.details,
        )

    def _room(self, event: KvBlocksStored | KvBlocksRemoved) -> int:
        """Return how many blocks fit into one event."""
        longest = max((len(name) for name in event.block_hashes), default=0)
        tokens = 0
        if isinstance(event, KvBlocksStored) and event.tokens is not None:
            tokens = 4 * (event.block_size or 0)
        return max(1, LARGEST // (longest + tokens + HASH_BYTES + 8))

    def _hold(self, name: str, block: _Block, tier: str) -> bool:
        """Remember that a name stands for a block in a tier; False where there is no room for another one."""
        before = self._blocks.get(name)
        if before is None and len(self._blocks) >= self._limit:
            return False
        if tier not in self._named and len(self._named) >= MEDIA:
            return False
        if before is not None and before.key != block.key:
            for one in self._tiers[name]:
                self._let_go((name,), one)
        self._gone.pop(name, None)
        self._blocks[name] = block
        tiers = self._tiers.get(name, ())
        if tier not in tiers:
            self._tiers[name] = self._lies(tuple(sorted((*tiers, tier))))
            named = self._named.setdefault(tier, {})
            named[block.key] = named.get(block.key, 0) + 1
        return True

    def _let_go(self, names: Iterable[str], tier: str) -> list[bytes]:
        """Forget names in a tier, and return the blocks of ours that no other name stands for there."""
        named, free = self._named.get(tier, {}), []
        for name in names:
            tiers = self._tiers.get(name, ())
            if tier not in tiers:
                continue
            block = self._blocks[name]
            if named[block.key] > 1:
                named[block.key] -= 1
            else:
                del named[block.key]
                free.append(block.key)
            if len(tiers) > 1:
                self._tiers[name] = self._lies(tuple(one for one in tiers if one != tier))
                continue
            del self._tiers[name], self._blocks[name]
            self._gone[name] = block
            if len(self._gone) > REMEMBERED:
                del self._gone[next(iter(self._gone))]
        if not named:
            self._named.pop(tier, None)
        return free

    def _lies(self, tiers: _Tiers) -> _Tiers:
        return self._shared.setdefault(tiers, tiers)
