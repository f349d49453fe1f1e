"""Put a state into a sequence of a context: checked first, so that what is refused leaves the context as it was."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache as cache_once
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from morphogen.schemas.kv import Fingerprint, KvRef, differences

from . import llama
from .contexts import Logits, Seat, Tokens, check_sequence, seat_of
from .errors import KvError, KvMismatch, KvRefused, StateTooLarge
from .fingerprint import fingerprint
from .format import LLAMA_KV
from .layout import complaint, parse
from .state import KvState


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What an import came to."""

    tokens: int
    size: int  # bytes of the whole state
    logits: bool  # whether the next token can be sampled at once
    fingerprint: Fingerprint


def import_kv(
    llm: Any,
    source: Any,
    seq: int = 0,
    *,
    transport: Any = None,
    logits: bool | None = None,
    loras: "Sequence[tuple[str | Path, float]] | None" = None,
    cache: Path | None = None,
) -> Imported:
    """Replace a sequence of a `llama_cpp.Llama` or a `RawContext` by a state; it goes on as if it had read the text.

    `source` is a KvState, a KvRef, a path, or anything that has bytes. A KvRef is opened by `transport`; one of
    transport `disk` with a whole path needs none.

    `logits` says whether the next token must be sampled at once. A Llama (None: yes) then takes the logits that the
    state carries, or decodes its last token once more; its cache is what was exported, bit by bit, in both cases. A
    RawContext (None: if the state carries them) keeps them by sequence. `loras` and `cache` are as in `export_kv`.

    Raises KvRefused for bytes that are cut off, changed or do not fit, KvMismatch where they mean something else here,
    LeaseEnded where nobody held them any more before all were read; the sequence is then as before. Raises KvError where
    the sequence or the source cannot be had.
    """
    seat = seat_of(llm, loras)
    check_sequence(seat, seq)
    with opened(source, transport) as state:
        tokens = _fitting(seat, state, cache)
        with state.verify() as payload:
            _check_parts(seat, state, payload)
            return _take(seat, seq, state, payload, tokens, logits)


def check_kv(llm: Any, source: Any, *, transport: Any = None, cache: Path | None = None) -> Imported:
    """Do all that `import_kv` does before it writes, and write nothing; raise what it would raise."""
    seat = seat_of(llm)
    with opened(source, transport) as state:
        tokens = _fitting(seat, state, cache)
        with state.verify() as payload:
            _check_parts(seat, state, payload)
        state.held()
        return Imported(
            tokens=tokens.size, size=state.size, logits=bool(state.header.logits), fingerprint=state.fingerprint
        )


@contextmanager
def opened(source: Any, transport: Any) -> Iterator[KvState]:
    """Give the state that lies in a source, start and header verified; see `import_kv`."""
    if isinstance(source, KvState):
        yield source
    elif isinstance(source, KvRef):
        with _by_reference(source, transport) as state:
            if source.checksum is not None and ":" in source.checksum and source.checksum != state.checksum:
                kind = state.checksum.split(":", maxsplit=1)[0]
                if source.checksum.startswith(f"{kind}:"):
                    raise KvRefused(f"{source.place}: another state lies there now: its checksum is {state.checksum}")
            yield state
    elif isinstance(source, str | Path):
        from .files import open_kv

        yield open_kv(source)
    elif hasattr(source, "buffer") and hasattr(source, "ref"):
        yield from _released(_leased(source, source.ref))
    else:
        try:
            yield KvState.read(source)
        except TypeError as error:
            raise KvError(f"a state cannot be read from a {type(source).__name__}: {error}") from error


def _released(state: KvState) -> Iterator[KvState]:
    """Give a state, and leave no view of its mapping behind: a segment that is still looked at cannot be written again."""
    try:
        yield state
    finally:
        state.release()


@contextmanager
def _by_reference(ref: KvRef, transport: Any) -> Iterator[KvState]:
    if transport is not None:
        with transport.open(ref) as mapped:
            yield from _released(_leased(mapped, ref))
    elif ref.transport == "disk" and Path(ref.place).is_absolute():
        from .files import open_kv

        yield open_kv(ref.place, offset=ref.offset, size=ref.size)
    elif ref.transport == "shared_memory":
        with _memory().open(ref) as mapped:
            yield from _released(_leased(mapped, ref))
    else:
        raise KvError(f"pass transport= to open a state of transport {ref.transport}")


def _leased(mapped: Any, ref: KvRef) -> KvState:
    state = KvState.read(mapped.buffer, ref.place)
    state.held = mapped.check
    return state


@cache_once
def _memory() -> Any:
    from .transport import SharedMemory

    return SharedMemory()


def _fitting(seat: Seat, state: KvState, cache: Path | None) -> Tokens:
    here = fingerprint(seat, cache)
    if state.fingerprint != here:
        raise KvMismatch(differences(state.fingerprint, here))
    tokens = state.tokens
    vocabulary = llama.vocabulary(seat.ctx)
    if tokens.size > seat.room:
        raise KvRefused(
            f"{state.where}: {tokens.size} tokens do not fit into {seat.room}: make the context larger, or export a prefix (upto)"
        )
    if tokens.min() < 0 or tokens.max() >= vocabulary:
        raise KvRefused(f"{state.where}: its tokens are not of this vocabulary of {vocabulary}")
    if state.logits is not None and state.logits.size != vocabulary:
        raise KvRefused(f"{state.where}: it has {state.logits.size} logits for a vocabulary of {vocabulary}")
    return tokens


def _check_parts(seat: Seat, state: KvState, payload: memoryview) -> None:
    made = state.fingerprint
    if not llama.has_cells(seat.ctx, made.arch):
        return  # a memory of another kind: llama.cpp's own checks remain, and a worker for who wants more
    layout = parse(payload)
    if layout is None or state.header.layout != LLAMA_KV:
        raise KvRefused(f"{state.where}: the payload is no state of a sequence; export it again")
    reason = complaint(
        [section.positions for section in layout.sections], state.count, int(made.swa.get("window") or 0)
    )
    for section in layout.sections:
        if section.streams != made.extra.get("streams") or section.v_transposed != made.v_transposed:
            reason = "its parts are not those that its header tells of"
    if reason:
        raise KvRefused(f"{state.where}: {reason}; export it again")


def _take(seat: Seat, seq: int, state: KvState, payload: memoryview, tokens: Tokens, wanted: bool | None) -> Imported:
    carried = state.logits
    raw = hasattr(seat, "note")
    if wanted is None:
        wanted = carried is not None or not raw
    seat.settle(seq)
    with _kept(seat, seq, state) as write:
        armed = wanted and carried is not None and (seat.tokens(seq).size > 0 or seat.arm(seq, tokens))
        write(payload)
        found: Logits | None = carried if armed else None
        if wanted and found is None:
            found = _decoded_again(seat, seq, tokens)
            write(payload)  # the last cell was made anew, alone: put back what the exporter computed
        state.held()  # what was taken out of bytes that changed meanwhile is put back like any other failure
        seat.adopt(seq, tokens, found)
    return Imported(tokens=tokens.size, size=state.size, logits=found is not None, fingerprint=state.fingerprint)


def _decoded_again(seat: Seat, seq: int, tokens: Tokens) -> Logits | None:
    last = tokens.size - 1
    if not llama.remove(seat.ctx, seq, last, -1):
        return None
    llama.decode_one(seat.ctx, seq, int(tokens[last]), last)
    row = llama.logits_row(seat.ctx)
    return None if row is None else row.copy()


@contextmanager
def _kept(seat: Seat, seq: int, state: KvState) -> "Iterator[Callable[[memoryview], None]]":
    """Give a way to replace a sequence; whatever goes wrong in the block, the sequence is then as it was before it.

    llama.cpp removes the sequence before it knows whether the new one fits. Its cells are therefore kept meanwhile: by a
    spare sequence that shares them where the cache is unified, else by a copy of their bytes.
    """

    def write(payload: memoryview) -> None:
        if llama.write_state(seat.ctx, seq, payload) != payload.nbytes:
            raise StateTooLarge(
                f"{state.where}: llama.cpp did not take {state.count} tokens into sequence {seq}: "
                "there may be no room in the cache; drop a sequence, or make the context larger"
            )
        last = llama.last_position(seat.ctx, seq)
        if last != state.count - 1:
            raise KvRefused(f"{state.where}: it ends at position {last}, not {state.count - 1}; export it again")

    put_back, done = _keeper(seat, seq)
    try:
        yield write
    except BaseException:
        llama.remove(seat.ctx, seq)
        put_back()
        raise
    done()


def _keeper(seat: Seat, seq: int) -> "tuple[Callable[[], None], Callable[[], None]]":
    ctx = seat.ctx
    if llama.last_position(ctx, seq) < 0:
        return _nothing, _nothing
    if seat.params.kv_unified and seat.sequences > 1:
        spare = next((number for number in range(seat.sequences) if llama.last_position(ctx, number) < 0), None)
        if spare is None:
            raise KvRefused(
                f"sequence {seq} is in use, and all {seat.sequences} are: drop it first, or make the context with one more"
            )
        llama.copy(ctx, seq, spare)

        def put_back() -> None:
            llama.copy(ctx, spare, seq)
            llama.remove(ctx, spare)

        def forget() -> None:
            llama.remove(ctx, spare)

        return put_back, forget
    kept = np.empty(llama.state_size(ctx, seq), np.uint8).data
    llama.read_state(ctx, seq, kept)

    def restore() -> None:
        llama.write_state(ctx, seq, kept)

    return restore, _nothing


def _nothing() -> None:
    """Do nothing."""
