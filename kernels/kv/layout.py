"""The parts of llama.cpp's own state of one sequence: which bytes are positions, keys and values of which token.

A state can so be checked before llama.cpp reads it, and cut to a prefix without a second context. Written after
`llama_kv_cache::state_write` of state version 3 (and 2, which it shares): for each cache of the model (one; two with a
sliding window) and each stream

    n_stream u32 | for each stream: cells u32, and where that is not 0:
        for each cell: position i32, sequences u32 (1), [x, y, token i32: M-RoPE], sequence i32
        v_transposed u32, layers u32
        for each layer:  type i32, row bytes u64, cells * row
        for each layer:  the same for values; transposed: type i32, element bytes u32, width u32, width * cells * element

after 8 bytes of magic and sequence. Other memories (recurrent, hybrid, DeepSeek 4) are not known here: `parse` says None.
"""

import itertools
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAGIC = 0xAF143CD8
_MAX_STREAMS, _MAX_LAYERS, _MAX_ROW = 256, 4096, 1 << 24


@dataclass(frozen=True)
class Block:
    """The keys or the values of one layer: `rows` runs of `cells * unit` bytes from `offset`."""

    kind: int  # ggml's number of the type
    offset: int
    rows: int  # 1, or the width where values are transposed
    unit: int  # bytes of one cell in a run
    head: bytes  # what stands before it


@dataclass(frozen=True)
class Section:
    """The cells of one cache in one stream."""

    streams: int
    stream: int
    positions: "np.ndarray[Any, np.dtype[np.int32]]"
    cell: int  # bytes of a cell's entry
    cells_offset: int
    v_transposed: bool
    layers: int
    blocks: tuple[Block, ...] = field(repr=False)

    @property
    def shape(self) -> tuple[Any, ...]:
        """All that two states of one context must share."""
        return self.streams, self.cell, self.v_transposed, self.layers, tuple((b.rows, b.head) for b in self.blocks)


@dataclass(frozen=True)
class Layout:
    """The sections of a sequence's state, one for each cache that holds cells of it."""

    sections: tuple[Section, ...]
    streams: tuple[int, ...]  # of each cache


def parse(data: memoryview) -> Layout | None:
    """Return the parts of a state, None where it is none of the known kind. Never reads outside; every byte is accounted."""
    if data.nbytes < 12 or struct.unpack_from("<I", data)[0] != MAGIC:
        return None
    for extra, values in itertools.product((0, 12), (True, False)):
        try:
            return _parse(data, extra, values)
        except (_Unknown, struct.error):
            continue
    return None


def complaint(caches: "list[np.ndarray[Any, np.dtype[np.int32]]]", count: int, window: int) -> str | None:
    """Return what is wrong with the positions in each cache of a state of `count` tokens; None where nothing is.

    With a sliding window a cache need hold only the last `window` of them.
    """
    if not caches:
        return "it holds no cells"
    for positions in caches:
        found = np.sort(positions)
        if not found.size:
            return "a cache of some layers holds no cells"
        first = max(0, count - window) if window and found[0] > 0 else 0
        if found[-1] != count - 1 or found[0] > first or not (np.diff(found) == 1).all():
            return (
                f"some layers hold {found.size} positions from {found[0]} to {found[-1]}, "
                f"not every one from {first} to {count - 1}"
            )
    return None


def cut(data: memoryview, layout: Layout, count: int) -> tuple[int, "list[Any]"]:
    """Return the size and the pieces, in order, of the state of the first `count` tokens alone."""
    pieces: list[Any] = [bytes(data[:8])]
    sections = iter(layout.sections)
    waiting = next(sections, None)
    for streams in layout.streams:
        pieces.append(struct.pack("<I", streams))
        for stream in range(streams):
            if waiting is None or waiting.stream != stream:
                pieces.append(struct.pack("<I", 0))
                continue
            pieces += _cut_section(data, waiting, count)
            waiting = next(sections, None)
    return sum(memoryview(piece).nbytes for piece in pieces), pieces


def _cut_section(data: memoryview, section: Section, count: int) -> "list[Any]":
    kept = np.flatnonzero(section.positions < count)
    if not kept.size:
        return [struct.pack("<I", 0)]
    whole = np.frombuffer(data, np.uint8)
    cells = section.positions.size
    plain = kept[-1] == kept.size - 1  # they stand first: a slice, no gathering

    def rows(offset: int, runs: int, unit: int) -> Any:
        table = whole[offset : offset + runs * cells * unit].reshape(runs, cells, unit)
        return np.ascontiguousarray(table[:, : kept.size] if plain else table[:, kept]).reshape(-1)

    pieces: list[Any] = [struct.pack("<I", kept.size), rows(section.cells_offset, 1, section.cell)]
    pieces.append(struct.pack("<II", section.v_transposed, section.layers))
    for block in section.blocks:
        pieces += [block.head, rows(block.offset, block.rows, block.unit)]
    return pieces


class _Unknown(Exception):
    """The bytes are not laid out as assumed."""


class _Cursor:
    """A place in the bytes that never passes their end."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 8

    def take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return found

    def skip(self, size: int) -> int:
        start, self.at = self.at, self.at + size
        if self.at > self.data.nbytes:
            raise _Unknown
        return start


def _parse(data: memoryview, extra: int, values: bool) -> Layout:
    cursor, sections, counts = _Cursor(data), [], []
    while cursor.at < data.nbytes:
        (streams,) = cursor.take("<I")
        if not 1 <= streams <= _MAX_STREAMS:
            raise _Unknown
        counts.append(streams)
        for stream in range(streams):
            (cells,) = cursor.take("<I")
            if cells:
                sections.append(_section(cursor, streams, stream, cells, extra, values))
    return Layout(tuple(sections), tuple(counts))


def _section(cursor: _Cursor, streams: int, stream: int, cells: int, extra: int, values: bool) -> Section:
    size = 12 + extra
    at = cursor.skip(cells * size)
    table = np.frombuffer(cursor.data[at : at + cells * size], np.dtype("<i4")).reshape(cells, size // 4)
    if not (table[:, 1] == 1).all() or (table[:, 0] < 0).any():
        raise _Unknown
    transposed, layers = cursor.take("<II")
    if transposed > 1 or not 1 <= layers <= _MAX_LAYERS:
        raise _Unknown
    blocks = [_rows(cursor, cells) for _ in range(layers)]
    if values:
        blocks += [_columns(cursor, cells) if transposed else _rows(cursor, cells) for _ in range(layers)]
    return Section(streams, stream, table[:, 0].copy(), size, at, bool(transposed), layers, tuple(blocks))


def _rows(cursor: _Cursor, cells: int) -> Block:
    began = cursor.at
    kind, row = cursor.take("<iQ")
    if not 0 < row <= _MAX_ROW or not 0 <= kind < 256:
        raise _Unknown
    head = bytes(cursor.data[began : cursor.at])
    return Block(kind, cursor.skip(cells * row), 1, row, head)


def _columns(cursor: _Cursor, cells: int) -> Block:
    began = cursor.at
    kind, element, width = cursor.take("<iII")
    if not 0 < element <= 256 or not 0 < width <= _MAX_ROW or not 0 <= kind < 256:
        raise _Unknown
    head = bytes(cursor.data[began : cursor.at])
    return Block(kind, cursor.skip(cells * element * width), width, element, head)
