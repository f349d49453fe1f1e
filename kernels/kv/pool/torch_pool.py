"""A pool of KV blocks in one tensor that torch owns: written and read a layer at a time, by table.

Shapes: L layers, N blocks, B tokens a block, H heads of keys and values, D dimensions of a head, T tokens.
"""

from collections.abc import Hashable, Sequence
from typing import Any, Self

import msgspec
import torch

from .blocks import Blocks, Table, one_piece
from .errors import PoolError, PoolMismatch


class PoolShape(msgspec.Struct, frozen=True, kw_only=True):
    """What two pools must have in common for their blocks to be exchanged; `dtype` as torch calls it."""

    layers: int
    heads: int
    head_dim: int
    block: int
    dtype: str = "float32"

    @property
    def width(self) -> int:
        """The bytes of one token: keys and values of all layers."""
        return self.layers * 2 * self.heads * self.head_dim * self.torch_dtype.itemsize

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type of an element. Raises PoolMismatch for what is none of torch's."""
        found = getattr(torch, self.dtype, None)
        if not isinstance(found, torch.dtype):
            raise PoolMismatch(f"torch has no type {self.dtype!r}")
        return found

    @classmethod
    def of(cls, config: Any, *, block: int = 16, dtype: torch.dtype | None = None) -> Self:
        """Return the shape for a Llama-style model of Hugging Face, from its config."""
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        chosen = dtype or getattr(config, "dtype" if hasattr(config, "dtype") else "torch_dtype", None) or torch.float32
        name = str(chosen).removeprefix("torch.")
        return cls(layers=config.num_hidden_layers, heads=heads, head_dim=head_dim, block=block, dtype=name)


class TorchKvPool:
    """Paged blocks of one tensor (L, 2, N, B, H, D).

    `memory` is a tensor of uint8 to lay the pool into, such as memory that other processes may open; without it, torch
    allocates. One thread at a time.
    """

    def __init__(
        self,
        shape: PoolShape,
        *,
        blocks: int,
        device: "str | torch.device" = "cpu",
        memory: torch.Tensor | None = None,
    ) -> None:
        self.shape = shape
        self.blocks = Blocks(blocks, shape.block)
        dims = (shape.layers, 2, blocks, shape.block, shape.heads, shape.head_dim)
        if memory is None:
            self.data = torch.zeros(dims, dtype=shape.torch_dtype, device=device)
        else:
            size = self.size_of(shape, blocks)
            if memory.dtype != torch.uint8 or memory.numel() < size:
                raise PoolMismatch(f"a pool of {blocks} blocks needs {size:,} bytes, not {memory.numel():,}")
            self.data = memory[:size].view(shape.torch_dtype).view(dims)
        # One row of slots a layer, for keys and for values: slot = block * B + place in the block.
        self.slots = self.data.view(shape.layers, 2, blocks * shape.block, shape.heads, shape.head_dim)
        self._index: dict[Hashable, tuple[Table, int, torch.Tensor]] = {}

    @staticmethod
    def size_of(shape: PoolShape, blocks: int) -> int:
        """Return the bytes of a pool."""
        return shape.width * shape.block * blocks

    @property
    def device(self) -> torch.device:
        """Where the pool lies."""
        return self.data.device

    def begin(self, sequence: Hashable, *, room: int = 0) -> None:
        """Begin an empty sequence, with blocks for `room` tokens taken ahead, in one piece where there is one."""
        self.blocks.begin(sequence, room)

    def length(self, sequence: Hashable) -> int:
        """Return the number of tokens of a sequence."""
        return self.blocks.table(sequence).length

    def extend(self, sequence: Hashable, tokens: int) -> None:
        """Make room for `tokens` more tokens of a sequence in all layers. Raises PoolFull: nothing has changed then."""
        copies = self.blocks.extend(sequence, tokens)
        if copies:
            source = torch.tensor([copy.source for copy in copies], device=self.device)
            target = torch.tensor([copy.target for copy in copies], device=self.device)
            self.data[:, :, target] = self.data[:, :, source]

    def crop(self, sequence: Hashable, length: int) -> None:
        """Forget the tokens of a sequence from `length` on."""
        self.blocks.crop(sequence, length)

    def fork(self, sequence: Hashable, other: Hashable) -> None:
        """Begin a sequence with the tokens of another one; blocks are copied when one of them goes on in one."""
        self.blocks.fork(sequence, other)

    def free(self, sequence: Hashable) -> None:
        """Forget a sequence."""
        self.blocks.drop(sequence)
        self._index.pop(sequence, None)

    def write(self, sequence: Hashable, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write keys and values (H, T, D) of one layer at tokens `start` to `start + T`, which `extend` has made room for."""
        count = keys.shape[-2]
        table = self.blocks.table(sequence)
        if not 0 <= start <= start + count <= table.length:
            raise PoolError(f"{sequence!r} has {table.length} tokens: {count} from {start} on do not fit")
        rows = self.slots[layer]
        if one_piece(table.blocks):
            place = table.blocks[0] * self.shape.block + start if count else 0
            rows[0, place : place + count] = keys.transpose(0, 1)
            rows[1, place : place + count] = values.transpose(0, 1)
            return
        slots = self._slots(sequence, table)[start : start + count]
        rows[0].index_copy_(0, slots, keys.transpose(0, 1).to(rows.dtype))
        rows[1].index_copy_(0, slots, values.transpose(0, 1).to(rows.dtype))

    def read(self, sequence: Hashable, layer: int, length: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values (H, T, D) of one layer: a view of the pool where the blocks lie in one piece."""
        table = self.blocks.table(sequence)
        length = table.length if length is None else length
        rows = self.slots[layer]
        if one_piece(table.blocks):
            place = table.blocks[0] * self.shape.block if table.blocks else 0
            found = rows[:, place : place + length]
        else:
            found = rows.index_select(1, self._slots(sequence, table)[:length])
        return found[0].transpose(0, 1), found[1].transpose(0, 1)

    def read_many(self, sequences: Sequence[Hashable], layer: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values (len(sequences), H, T, D) of one layer, for sequences of the same length."""
        if len(sequences) == 1:
            keys, values = self.read(sequences[0], layer, length)
            return keys.unsqueeze(0), values.unsqueeze(0)
        slots = torch.cat([self._slots(name, self.blocks.table(name))[:length] for name in sequences])
        found = self.slots[layer].index_select(1, slots)
        found = found.view(2, len(sequences), length, self.shape.heads, self.shape.head_dim).transpose(2, 3)
        return found[0], found[1]

    def tokens(self, sequence: Hashable) -> torch.Tensor:
        """Return the tokens of a sequence as one tensor (L, 2, T, H, D): a view where they lie in one piece, else a copy."""
        table = self.blocks.table(sequence)
        if one_piece(table.blocks):
            place = table.blocks[0] * self.shape.block if table.blocks else 0
            return self.slots[:, :, place : place + table.length]
        return self.slots.index_select(2, self._slots(sequence, table)[: table.length])

    def pack(self, sequence: Hashable, into: torch.Tensor) -> None:
        """Copy the tokens of a sequence into a tensor of as many elements, laid out as (L, 2, T, H, D)."""
        table = self.blocks.table(sequence)
        target = into.view(self.shape.layers, 2, table.length, self.shape.heads, self.shape.head_dim)
        if one_piece(table.blocks) or target.device != self.device:
            target.copy_(self.tokens(sequence))
        else:
            torch.index_select(self.slots, 2, self._slots(sequence, table)[: table.length], out=target)

    def unpack(self, sequence: Hashable, data: torch.Tensor) -> None:
        """Begin a sequence with the tokens of a tensor (L, 2, T, H, D). Raises PoolFull: nothing has changed then."""
        shape = self.shape
        fits = data.ndim == 5 and (data.shape[0], data.shape[1], *data.shape[3:]) == (
            shape.layers, 2, shape.heads, shape.head_dim,
        )  # fmt: skip
        if not fits or data.dtype != shape.torch_dtype:
            raise PoolMismatch(f"a tensor {tuple(data.shape)} of {data.dtype} is no sequence of this pool, {shape}")
        length = data.shape[2]
        self.blocks.begin(sequence, length)
        self.blocks.extend(sequence, length)
        table = self.blocks.table(sequence)
        if one_piece(table.blocks):
            place = table.blocks[0] * shape.block if table.blocks else 0
            self.slots[:, :, place : place + length].copy_(data)
        else:
            self.slots.index_copy_(2, self._slots(sequence, table)[:length], data.to(self.device))

    def adopt(self, sequence: Hashable, blocks: Sequence[int], length: int) -> None:
        """Begin a sequence over blocks that hold its tokens already. Raises PoolError where they are not free."""
        self.blocks.adopt(sequence, blocks, length)

    def _slots(self, sequence: Hashable, table: Table) -> torch.Tensor:
        found = self._index.get(sequence)
        if found is not None and found[0] is table and found[1] == table.version:
            return found[2]
        blocks = torch.tensor(table.blocks, device=self.device, dtype=torch.long)
        places = torch.arange(self.shape.block, device=self.device)
        slots = (blocks[:, None] * self.shape.block + places).flatten()
        self._index[sequence] = table, table.version, slots
        return slots
