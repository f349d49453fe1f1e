"""Take a sequence out of a context: straight into memory, a file or a transport's room, in one copy."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from morphogen.schemas.kv import KvRef

from . import llama
from .checksum import checksum
from .contexts import Seat, Tokens, check_sequence, seat_of
from .errors import KvError
from .fingerprint import fingerprint
from .format import LLAMA_KV, OPAQUE, Header, encode_header, finish, pack_tokens, payload_offset
from .layout import complaint, cut, parse
from .state import KvState, flat


def export_kv(
    llm: Any,
    seq: int = 0,
    into: Any = None,
    *,
    tokens: "Sequence[int] | None" = None,
    upto: int | None = None,
    loras: "Sequence[tuple[str | Path, float]] | None" = None,
    cache: Path | None = None,
    details: dict[str, Any] | None = None,
) -> "KvState | KvRef":
    """Export a sequence of a `llama_cpp.Llama` or a `RawContext`, with its token ids and its fingerprint.

    `into` says where the bytes go: None a buffer of their own and anything writable that buffer (a KvState comes back);
    a path a file, written whole or not at all; a transport, or room that it reserved, there (a KvRef comes back).
    `upto` keeps the first so many tokens. `tokens` are the ids where the context was not told. `loras` are the adapters
    of a Llama that were set past it. `cache` is a folder that keeps the hashes of weights. `details` go into the header.

    Raises KvError where there is nothing to export, the positions are not 0 to n-1, or the room is too small.
    """
    job = _Job(seat_of(llm, loras), seq, tokens, upto, cache, details or {})
    if into is None:
        return job.write(np.empty(job.size, np.uint8).data)
    if isinstance(into, str | Path):
        from .files import create

        with create(into, job.size) as file:
            return file.commit(job.write(file.buffer))
    if hasattr(into, "reserve"):
        with into.reserve(job.size) as reservation:
            return _commit(reservation, job.write(flat(reservation.buffer)))
    if hasattr(into, "commit") and hasattr(into, "buffer"):
        return _commit(into, job.write(flat(into.buffer)))
    try:
        room = flat(into)
    except TypeError as error:
        raise KvError(f"a state cannot be written into a {type(into).__name__}: {error}") from error
    return job.write(room)


def kv_size(llm: Any, seq: int = 0, *, tokens: "Sequence[int] | None" = None, cache: Path | None = None) -> int:
    """Return the bytes that exporting a whole sequence needs; a part of it (`upto`) needs no more."""
    return _Job(seat_of(llm), seq, tokens, None, cache, {}).size


class _Job:
    """One export: what it will be, known before a byte is written."""

    def __init__(
        self,
        seat: Seat,
        seq: int,
        tokens: "Sequence[int] | None",
        upto: int | None,
        cache: Path | None,
        details: dict[str, Any],
    ) -> None:
        check_sequence(seat, seq)
        seat.vouch(seq)
        seat.settle(seq)
        self._seat, self._seq = seat, seq
        held = seat.tokens(seq) if tokens is None else _ids(tokens, llama.vocabulary(seat.ctx))
        self._check(held, upto)
        count = held.size if upto is None else upto
        self._whole = count == held.size
        self._count = count
        print_ = fingerprint(seat, cache)
        self._window = int(print_.swa.get("window") or 0)
        logits = seat.logits(seq) if self._whole else None
        self._parts: list[Any] | None = None
        if self._whole:
            self._payload = llama.state_size(seat.ctx, seq)
        else:
            self._payload, self._parts = self._cut(held.size)
        self._header = Header(
            fingerprint=print_,
            tokens=pack_tokens(held[:count]),
            layout=OPAQUE,  # until the bytes were seen; either value takes as much room
            logits=b"" if logits is None else np.ascontiguousarray(logits, "<f4").tobytes(),
            made_ns=time.time_ns(),
            details=details,
        )
        self._at = payload_offset(encode_header(self._header))
        self.size = self._at + self._payload

    def write(self, buffer: memoryview) -> KvState:
        """Write the state at the beginning of a buffer."""
        if buffer.readonly or buffer.nbytes < self.size:
            told = "is read-only" if buffer.readonly else f"has {buffer.nbytes} bytes"
            raise KvError(f"the state needs {self.size} writable bytes, the buffer {told}")
        room = buffer[self._at : self.size]
        digest = self._copy(room)
        header = msgspec.structs.replace(self._header, layout=self._layout(room))
        start = finish(buffer, encode_header(header), self._payload, digest)
        return KvState(buffer.toreadonly(), start, header)

    def _copy(self, room: memoryview) -> bytes:
        if self._parts is not None:
            place = 0
            for part in self._parts:
                piece = flat(part)
                room[place : place + piece.nbytes] = piece
                place += piece.nbytes
            return checksum(room)
        written = llama.read_state(self._seat.ctx, self._seq, room)
        if written != self._payload:
            raise KvError(
                f"llama.cpp wrote {written} of {self._payload} bytes of sequence {self._seq}: export it again"
            )
        return checksum(room)

    def _layout(self, room: memoryview) -> int:
        arch = self._header.fingerprint.arch
        if not llama.has_cells(self._seat.ctx, arch):
            return OPAQUE
        layout = parse(room)
        if layout is None:
            raise KvError(f"the cache of architecture {arch} is laid out as this version does not know: upgrade")
        reason = complaint([section.positions for section in layout.sections], self._count, self._window)
        if reason:
            raise KvError(
                f"sequence {self._seq} cannot be exported: {reason}; was its cache shifted, or does it hold images?"
            )
        return LLAMA_KV

    def _check(self, held: Tokens, upto: int | None) -> None:
        seat, seq = self._seat, self._seq
        last = llama.last_position(seat.ctx, seq)
        if not held.size or last < 0:
            raise KvError(f"sequence {seq} holds no tokens: evaluate some first")
        if last + 1 != held.size:
            raise KvError(
                f"sequence {seq} holds positions up to {last}, but {held.size} tokens are known of it: "
                "pass tokens= with the ids of all of them"
            )
        if upto is not None and not isinstance(upto, int | np.integer):
            raise KvError(f"upto is a number of tokens, not the {type(upto).__name__} {upto!r}")
        if upto is not None and not 0 < upto <= held.size:
            raise KvError(f"sequence {seq} has {held.size} tokens: upto must be 1 to {held.size}, not {upto}")

    def _cut(self, held: int) -> "tuple[int, list[Any]]":
        whole = np.empty(llama.state_size(self._seat.ctx, self._seq), np.uint8).data
        written = llama.read_state(self._seat.ctx, self._seq, whole)
        layout = parse(whole[:written])
        if layout is None:
            raise KvError("this model's memory cannot be cut to a prefix: export the sequence whole")
        kept = [section.positions[section.positions < self._count] for section in layout.sections]
        reason = complaint(kept, self._count, self._window)
        if reason:
            raise KvError(
                f"the first {self._count} of {held} tokens cannot be had alone: {reason}; a sliding window forgets"
            )
        return cut(whole, layout, self._count)


def _ids(tokens: Any, vocabulary: int) -> Tokens:
    """Return what the caller says that a sequence holds. Raises KvError for what no reader would take."""
    try:
        ids = np.asarray(tokens)
    except (TypeError, ValueError, OverflowError) as error:
        raise KvError(f"tokens= are no token ids: {error}") from error
    if ids.size and (ids.ndim != 1 or ids.dtype.kind not in "iu"):
        raise KvError(f"tokens= are whole numbers in a row, not {ids.ndim} dimensions of {ids.dtype}")
    if ids.size and (ids.min() < 0 or ids.max() >= vocabulary):
        raise KvError(f"tokens= hold {ids.min()} to {ids.max()}: the vocabulary has {vocabulary}, from 0")
    return ids.astype(np.int32)


def _commit(reservation: Any, state: KvState) -> KvRef:
    from .transport.contract import Meta

    meta = Meta(checksum=state.checksum, size=state.size, details={"tokens": state.count})
    committed: KvRef = reservation.commit(meta)
    return committed
