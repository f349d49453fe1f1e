"""A pool behind the cache interface of Hugging Face's models: `model(..., past_key_values=PoolCache(pool))`.

Each row of a batch is a sequence of the pool. Beams share the blocks of what they have in common. Only attention over
all tokens is served: a model with sliding windows keeps more here than it needs, and masks it.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from .errors import MissingExtra, PoolError, PoolMismatch
from .torch_pool import TorchKvPool

try:
    from transformers.cache_utils import Cache, CacheLayerMixin
except ImportError as missing:
    raise MissingExtra("the cache of a Hugging Face model needs transformers: pip install 'morphogen[hf]'") from missing


class PoolLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is not typed
    """One layer of a `PoolCache`, as transformers asks for it."""

    is_croppable = True

    def __init__(self, cache: "PoolCache", number: int) -> None:
        super().__init__()
        self.cache, self.number = cache, number
        self.length = 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: the pool is there."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values (batch, H, T, D); return all of them so far."""
        return self.cache.store(self, key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys there will be, and from which on they are seen."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of tokens."""
        return self.length

    def get_max_length(self) -> int:
        """Return -1: the pool's blocks are the limit, not a number of tokens."""
        return -1

    def get_max_cache_shape(self) -> int:
        """Return the same, as transformers called it before."""
        return -1

    @property
    def batch_size(self) -> int:
        """The number of rows."""
        return len(self.cache.sequences)

    def offload(self) -> None:
        """Do nothing: a pool stays where it is."""

    def prefetch(self) -> None:
        """Do nothing: a pool stays where it is."""


class PoolCache(Cache):  # type: ignore[misc]  # transformers is not typed
    """A cache whose keys and values lie in a pool.

    `sequences`: names of sequences of the pool to go on with, one for each row, all of one length. Without them, rows
    begin with the first forward pass, under names of the cache's own; `room` tokens are then taken ahead for each, so
    that they stay in one piece. The blocks are held until `free`.
    """

    def __init__(self, pool: TorchKvPool, sequences: Sequence[Hashable] = (), *, room: int = 0) -> None:
        self.pool, self.room = pool, room
        self.sequences: list[Hashable] = list(sequences)
        lengths = {pool.length(name) for name in self.sequences}
        if len(lengths) > 1:
            raise PoolError(f"the rows of a batch are of one length, not of {sorted(lengths)}")
        super().__init__(layers=[PoolLayer(self, number) for number in range(pool.shape.layers)])
        self._set_length(lengths.pop() if lengths else 0)

    def store(self, layer: PoolLayer, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one layer's new tokens into the pool; the first layer makes room for all. Raises PoolFull, PoolMismatch."""
        rows, heads, count, dim = keys.shape
        shape = self.pool.shape
        if (heads, dim) != (shape.heads, shape.head_dim) or keys.dtype != shape.torch_dtype:
            raise PoolMismatch(
                f"keys of {heads} heads of {dim} in {keys.dtype} are none of this pool's, which has {shape}"
            )
        if not self.sequences:
            self._begin(rows)
        if rows != len(self.sequences):
            raise PoolError(f"a batch of {rows} rows was given to a cache of {len(self.sequences)}")
        self._extend(layer.length + count)
        for row, name in enumerate(self.sequences):
            self.pool.write(name, layer.number, layer.length, keys[row], values[row])
        layer.length += count
        return self.pool.read_many(self.sequences, layer.number, layer.length)

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last `-n` tokens; a positive number says how many to keep, as it did in earlier versions."""
        if self.sequences:
            now = self.get_seq_length()
            keep = min(now, tokens_to_remove) if tokens_to_remove > 0 else max(0, now + tokens_to_remove)
            for name in self.sequences:
                self.pool.crop(name, keep)
            self._set_length(keep)

    def reset(self) -> None:
        """Forget all tokens, and the rows."""
        self.free()

    def free(self) -> None:
        """Give all blocks back."""
        for name in self.sequences:
            self.pool.free(name)
        self.sequences = []
        self._set_length(0)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Let each row go on from another one."""
        self._select(beam_idx.tolist())

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self._select([row for row in range(len(self.sequences)) for _ in range(repeats)])

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep only these rows."""
        self._select(torch.arange(len(self.sequences))[indices.cpu()].tolist())

    def _begin(self, rows: int) -> None:
        started: list[Hashable] = []
        try:
            for _ in range(rows):
                name = object()
                self.pool.begin(name, room=self.room)
                started.append(name)
        except BaseException:
            for name in started:
                self.pool.free(name)
            raise
        self.sequences = started

    def _extend(self, length: int) -> None:
        grown: list[tuple[Hashable, int]] = []
        try:
            for name in self.sequences:
                before = self.pool.length(name)
                if length > before:
                    self.pool.extend(name, length - before)
                    grown.append((name, before))
        except BaseException:
            for name, before in grown:  # all rows, or none
                self.pool.crop(name, before)
            raise

    def _select(self, rows: list[int]) -> None:
        names: list[Hashable] = [object() for _ in rows]
        for row, name in zip(rows, names, strict=True):
            self.pool.fork(self.sequences[row], name)
        for name in self.sequences:
            self.pool.free(name)
        self.sequences = names

    def _set_length(self, length: int) -> None:
        for layer in self.layers:
            layer.length = length
