"""Our chain over the blocks of another engine: computed where tokens are told, remembered where only hashes are.

An engine's own hashes differ from worker to worker (vLLM seeds them at random), so they say nothing across a fleet. A
`Lineage` knows, for one worker, which block of the engine is which of ours. It is a fold: fed with the log's past of that
worker it stands where the process before it stood.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from morphogen.schemas import Event
from morphogen.schemas.kv import HASH_BYTES, KvBlocksCleared, KvBlocksRemoved, KvBlocksStored, chain

from .chains import over_hashes, root_of, split, with_extra

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LIMIT = 4_000_000  # blocks of one worker; beyond it blocks are told of without a chain
REMEMBERED = 200_000  # blocks that were let go of, which another medium may still be given
LARGEST = 192 << 10  # bytes of one event, about; a longer chain is told in several


class _Block(NamedTuple):
    key: bytes
    depth: int  # blocks up to and including this one
    root: str


class Lineage:
    """The blocks of one worker. `len` is how many it holds that have a chain."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._blocks: dict[str, _Block] = {}
        self._media: dict[str, tuple[str | None, ...]] = {}
        self._gone: dict[str, _Block] = {}
        self._limit = limit

    def __len__(self) -> int:
        return len(self._blocks)

    def take(self, event: Event) -> None:
        """Fold an event of this worker's past, as it stands in the log."""
        if isinstance(event, KvBlocksStored):
            keys, depths = split(event.hashes), event.details.get("depths", ())
            if event.root is not None and len(keys) == len(event.block_hashes) == len(depths):
                for name, key, depth in zip(event.block_hashes, keys, depths, strict=True):
                    self._hold(name, _Block(key, depth, event.root), event.medium)
        elif isinstance(event, KvBlocksRemoved):
            self._let_go(event.block_hashes, event.medium)
        elif isinstance(event, KvBlocksCleared):
            self.clear()

    def stored(
        self, event: KvBlocksStored, *, token_hashes: Sequence[int] = (), extra: Sequence[bytes | None] = ()
    ) -> Iterator[KvBlocksStored]:
        """Yield a stored event with our chain over its blocks; several where it is long, or known only in part."""
        made = self._chained(event, token_hashes, extra)
        start = 0
        while start < len(made):
            known = made[start] is not None
            stop, room = start, self._room(event)
            while stop < len(made) and stop - start < room and (made[stop] is not None) == known:
                stop += 1
            yield self._part(event, made, start, stop)
            start = stop
        if not made:
            yield event

    def removed(self, event: KvBlocksRemoved) -> Iterator[KvBlocksRemoved]:
        """Yield a removed event with our hashes of the blocks that are known; several where it names many."""
        room = self._room(event)
        for start in range(0, max(1, len(event.block_hashes)), room):
            names = event.block_hashes[start : start + room]
            keys = [block.key for name in names if (block := self._blocks.get(name)) is not None]
            self._let_go(names, event.medium)
            yield msgspec.structs.replace(event, block_hashes=names, hashes=b"".join(keys))

    def clear(self) -> None:
        """Forget all: the worker holds nothing."""
        self._blocks.clear()
        self._media.clear()
        self._gone.clear()

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

    def _part(self, event: KvBlocksStored, made: Sequence[_Block | None], start: int, stop: int) -> KvBlocksStored:
        names, size = event.block_hashes[start:stop], event.block_size or 0
        found = [block for block in made[start:stop] if block is not None]
        for name, block in zip(names, found, strict=False):
            self._hold(name, block, event.medium)
        tokens = None if event.tokens is None else event.tokens[start * size : stop * size]
        if tokens is not None and tokens.nbytes > 2 * LARGEST:
            tokens = None
        return msgspec.structs.replace(
            event,
            block_hashes=names,
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

    def _hold(self, name: str, block: _Block, medium: str | None) -> None:
        self._gone.pop(name, None)
        if name not in self._blocks and len(self._blocks) >= self._limit:
            return
        self._blocks[name] = block
        media = self._media.get(name, ())
        if medium not in media:
            self._media[name] = (*media, medium)

    def _let_go(self, names: Iterable[str], medium: str | None) -> None:
        for name in names:
            left = tuple(one for one in self._media.get(name, ()) if one != medium)
            if left:
                self._media[name] = left
                continue
            self._media.pop(name, None)
            block = self._blocks.pop(name, None)
            if block is not None:
                self._gone[name] = block
                if len(self._gone) > REMEMBERED:
                    del self._gone[next(iter(self._gone))]
