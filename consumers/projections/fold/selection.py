"""The events of one type in a batch, with their bodies decoded: all in one call where they are as they should be."""

import struct
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from morphogen.schemas import Unknown, decode, decode_event, decoder_of, event_class

from .envelopes import Bodies, joined
from .rows import Columns, Values

if TYPE_CHECKING:
    import numpy.typing as npt

    from .batch import Batch

    Positions = npt.NDArray[np.intp]
    Mask = npt.NDArray[np.bool_]

_ARRAY32 = struct.Struct(">BI")


class Selection:
    """The readable events of one type in a batch; `positions` says where they stand in it."""

    def __init__(
        self, batch: "Batch", kind: str, positions: "Positions", bodies: list[Any] | None, newest: "Mask"
    ) -> None:
        self.batch = batch
        self.type = kind
        self.positions = positions
        self._bodies = bodies  # None where they are wanted as they were written
        self.newest = newest
        """Which of them were written in the newest version, not lifted to it."""

    def __len__(self) -> int:
        return len(self.positions)

    @cached_property
    def bodies(self) -> list[Any]:
        """Decoded bodies, in order; as bytes where the selection was asked for raw ones."""
        return self.raw.raws() if self._bodies is None else self._bodies

    @cached_property
    def raw(self) -> Bodies:
        """Where the bodies lie, if the selection was asked for raw ones."""
        return self.batch.bodies(self.positions) if self._bodies is None else joined(self._bodies)

    @property
    def whole(self) -> bool:
        """Tell whether every event of the batch is in here."""
        return len(self.positions) == len(self.batch)

    def take(self, array: Any) -> Any:
        """Cut an array over the batch down to this selection."""
        return array if self.whole else array[self.positions]

    @cached_property
    def front(self) -> dict[str, Values]:
        """Place and envelope of each event, by the column names that every table begins with."""
        batch = self.batch
        every = (batch.seq, batch.idx, batch.run, batch.attempt, batch.rank, batch.step, batch.time)
        names = ("seq", "idx", "run", "attempt", "rank", "step", "time")
        return {name: self.take(array) for name, array in zip(names, every, strict=True)}

    def columns(self, columns: dict[str, Values], lengths: "npt.NDArray[np.integer[Any]] | None" = None) -> Columns:
        """Return rows for a table: `columns` with place and envelope in front.

        With `lengths`, event i has `lengths[i]` consecutive rows; without, each has one.
        """
        if lengths is None:
            return Columns({**self.front, **columns})
        return Columns({**{name: array.repeat(lengths) for name, array in self.front.items()}, **columns})


def select(batch: "Batch", kind: str, shape: type[Any] | None) -> Selection:
    """Return the events of one type that can be read as its newest class, or as `shape`; see `Batch.of`."""
    kinds = batch.kinds
    code = kinds.words.index(kind) if kind in batch.types else -1
    if code < 0:
        return Selection(batch, kind, np.empty(0, np.intp), [], np.empty(0, np.bool_))
    positions = np.arange(len(batch)) if len(kinds.words) == 1 else np.flatnonzero(kinds.codes == code)
    cls = event_class(kind)
    if cls is None:
        bodies = [decode(raw) for raw in batch.bodies(positions).raws()]
        return Selection(batch, kind, positions, bodies, np.ones(len(bodies), np.bool_))
    versions = batch.version[positions]
    newest = versions == cls.version
    if newest.all():
        if shape is msgspec.Raw:
            return Selection(batch, kind, positions, None, newest)
        together = _decode_all(
            batch.bodies(positions).raws(), decoder_of(cls) if shape is None else _shape_decoder(shape), shape or cls
        )
        if together is not None:
            return Selection(batch, kind, positions, together, newest)
    kept: list[int] = []
    bodies = []
    for i, (version, written) in enumerate(zip(versions.tolist(), batch.bodies(positions).raws(), strict=True)):
        event = decode_event(kind, version, written)
        if isinstance(event, Unknown):
            continue
        body: Any = event
        if shape is not None:
            raw = msgspec.Raw(written if newest[i] else event.encode())
            try:
                body = raw if shape is msgspec.Raw else _shape_decoder(shape).decode(raw)
            except msgspec.MsgspecError:
                continue
        kept.append(i)
        bodies.append(body)
    chosen = np.array(kept, np.intp)
    return Selection(batch, kind, positions[chosen], bodies, newest[chosen])


_list_decoders: dict[type[Any], msgspec.msgpack.Decoder[Any]] = {}
_shape_decoders: dict[type[Any], msgspec.msgpack.Decoder[Any]] = {}


def _shape_decoder(shape: type[Any]) -> "msgspec.msgpack.Decoder[Any]":
    if shape not in _shape_decoders:
        _shape_decoders[shape] = msgspec.msgpack.Decoder(shape)
    return _shape_decoders[shape]


def _decode_all(raws: list[bytes], one: "msgspec.msgpack.Decoder[Any]", kind: type[Any]) -> list[Any] | None:
    """Decode many bodies in one call, as the array that their bytes are when laid end to end; None if any is bad."""
    decoder = _list_decoders.get(kind)
    if decoder is None:
        decoder = _list_decoders[kind] = msgspec.msgpack.Decoder(list[kind], dec_hook=one.dec_hook)  # type: ignore[valid-type]
    try:
        bodies = decoder.decode(_ARRAY32.pack(0xDD, len(raws)) + b"".join(raws))
    except Exception:  # noqa: BLE001  the caller goes through them one by one and leaves out the bad ones
        return None
    return bodies  # type: ignore[no-any-return]
