"""`layer_health`: one row a layer and step, from vectors to columns without a loop over rows.

NULL is "not measured"; NaN was measured and is NaN. `depth` is the layer's place in the model, from 0.
"""

from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from morphogen.schemas import SIGNALS, Names
from morphogen.schemas.values import extension_hook

from ..fold.arrays import Words, from_numpy, strings
from ..fold.batch import Batch
from ..fold.selection import Selection
from ..projection import Body, Projection, Rows
from .alike import Slot, alike, column, fields, stretches, vector_slot

if TYPE_CHECKING:
    import numpy.typing as npt

_Ext = msgspec.msgpack.Ext
_code, _data, _signals = attrgetter("code"), attrgetter("data"), attrgetter(*SIGNALS)
_FLOAT32 = 10  # the extension code of a float32 vector


class _Wire(msgspec.Struct, gc=False):
    """A `health.layer` body whose vectors are still bytes."""

    layers: _Ext | list[str]
    grad_norm: _Ext | list[float] | None = None
    weight_norm: _Ext | list[float] | None = None
    update_ratio: _Ext | list[float] | None = None
    activation_mean: _Ext | list[float] | None = None
    activation_variance: _Ext | list[float] | None = None
    dead_share: _Ext | list[float] | None = None
    nonfinite: _Ext | list[float] | None = None
    missing: dict[str, list[int]] = {}


_decoder = msgspec.msgpack.Decoder(_Wire)


def _gather() -> str:
    fields = ", ".join(f"'{name}': {name}" for name in ("depth", "layer", *SIGNALS))
    return f"list({{{fields}}} ORDER BY depth)"


def _body() -> str:
    signals = []
    for signal in SIGNALS:
        every = f"list_transform(held, lambda r: r.{signal})"
        signals.append(f"'{signal}': CASE WHEN list_count({every}) > 0 THEN {every} END")
    return f"{{'layers': list_transform(held, lambda r: r.layer), {', '.join(signals)}}}::JSON"


class LayerHealthRows(Projection, name="layer_health", version=1, types=("health.layer",)):
    """Health of each layer, by run, attempt, rank and step.

    The floats are stored as they are: random mantissas do not compress, and DuckDB would try at length.
    """

    tables = {
        "layer_health": "layer VARCHAR, depth INTEGER, "
        + ", ".join(f"{signal} FLOAT USING COMPRESSION uncompressed" for signal in SIGNALS)
    }
    repeating = ("layer_health",)
    bodies = {"health.layer": Body("layer_health", _gather(), _body())}

    def fold(self, batch: Batch) -> Rows:
        """Return a row for each layer of each event."""
        found = batch.once(self.name, lambda: _read(batch))
        if not len(found.events):
            return {}
        total = int(found.lengths.sum())
        starts = np.cumsum(found.lengths) - found.lengths
        depth = np.arange(total, dtype=np.int32) - np.repeat(starts, found.lengths).astype(np.int32)
        columns = {"layer": found.layer, "depth": depth, **found.signals}
        return {"layer_health": found.events.columns(columns, found.lengths)}

    def holds(self, batch: Batch) -> "npt.NDArray[np.intp]":
        """Return the events whose vectors are all float32, as long as the list of layers, and have no gaps."""
        found = batch.once(self.name, lambda: _read(batch))
        return found.events.positions[found.exact]


class _Found(NamedTuple):
    """Layers and signals of a batch end to end, how many layers each event has, and which events lose nothing so."""

    events: Selection
    lengths: "npt.NDArray[np.int64]"
    layer: Words
    signals: dict[str, pa.Array]
    exact: "npt.NDArray[np.bool_]"


def _read(batch: Batch) -> _Found:
    return _read_alike(batch.of("health.layer", msgspec.Raw)) or _read_each(batch.of("health.layer", _Wire))


def _read_alike(events: Selection) -> _Found | None:
    """Read stretches of events over the same layers, without an object for any vector."""
    matrices = stretches(events.raw)
    if not matrices:
        return None
    layers: list[tuple[str, ...]] = []
    signals: dict[str, list[Any]] = {signal: [] for signal in SIGNALS}
    for matrix in matrices:
        body = matrix[0].tobytes()
        layout = _layout(body)
        if layout is None or not alike(matrix, [slot for slot in layout[1].values() if slot is not None]):
            return None
        names, slots = layout
        layers.extend([names] * len(matrix))
        for signal, slot in slots.items():
            absent = pa.nulls(len(matrix) * len(names), pa.float32())
            signals[signal].append(absent if slot is None else from_numpy(column(matrix, slot).ravel(), pa.float32()))
    lengths = np.fromiter(map(len, layers), np.int64, len(layers))
    joined = {name: parts[0] if len(parts) == 1 else pa.concat_arrays(parts) for name, parts in signals.items()}
    return _Found(events, lengths, _layer_column(layers), joined, events.newest)


def _layout(body: bytes) -> tuple[tuple[str, ...], dict[str, Slot | None]] | None:
    """Return the layers of a body and where its vectors stand; None if it has anything that a matrix does not show."""
    places = fields(body)
    if places is None or not places.keys() <= {"layers", "missing", *SIGNALS} or "layers" not in places:
        return None
    try:
        names = _layers(_decoder.decode(body).layers)
    except msgspec.MsgspecError:
        return None
    gaps = places.get("missing")
    if not names or (gaps is not None and body[slice(*gaps)] != b"\x80"):
        return None
    slots: dict[str, Slot | None] = dict.fromkeys(SIGNALS)
    for signal in SIGNALS:
        place = places.get(signal)
        if place is None or body[slice(*place)] == b"\xc0":
            continue
        slot = slots[signal] = vector_slot(body, *place, _FLOAT32, "<f4")
        if slot is None or slot.end - slot.start != 4 * len(names):
            return None
    return names, slots


def _read_each(events: Selection) -> _Found:
    if not len(events):
        return _Found(events, np.empty(0, np.int64), strings([]), {}, events.newest)
    flat = _Flat(events.bodies)
    exact = events.newest & (flat.lengths > 0)
    for signal in SIGNALS:
        if flat.vectors[signal] is None:
            pairs = zip(flat.values[signal], flat.sizes, strict=True)
            exact &= np.array([value is None or _fits(value, size) for value, size in pairs], np.bool_)
    if flat.gaps:
        exact &= np.array([not body.missing for body in events.bodies], np.bool_)
    signals = {signal: _column(signal, events.bodies, flat) for signal in SIGNALS}
    return _Found(events, flat.lengths, _layer_column(flat.layers), signals, exact)


class _Flat:
    """Bodies end to end: the layers of each, where its rows begin, and the bytes of each signal.

    `vectors[signal]` is None where not every body has a float32 vector of the right length.
    """

    def __init__(self, bodies: list[_Wire]) -> None:
        self.layers = _all_layers([body.layers for body in bodies])
        self.lengths = np.fromiter(map(len, self.layers), np.int64, len(bodies))
        self.starts = np.cumsum(self.lengths) - self.lengths
        self.sizes = (self.lengths * 4).tolist()
        self.gaps = any([body.missing for body in bodies])  # noqa: C419  a list is faster than a generator
        self.values = dict(zip(SIGNALS, zip(*map(_signals, bodies), strict=True), strict=True))
        self.vectors = {signal: self._end_to_end(values) for signal, values in self.values.items()}

    def _end_to_end(self, values: tuple[Any, ...]) -> bytes | None:
        if not {_Ext}.issuperset(map(type, values)) or set(map(_code, values)) != {_FLOAT32}:
            return None
        data = list(map(_data, values))
        return b"".join(data) if list(map(len, data)) == self.sizes else None


def _fits(value: Any, size: int) -> bool:
    return type(value) is _Ext and value.code == _FLOAT32 and len(value.data) == size  # type: ignore[arg-type]


def _all_layers(values: list["_Ext | list[str]"]) -> list[tuple[str, ...]]:
    known = [names for value in values if type(value) is _Ext and (names := _names.get(bytes(value.data))) is not None]
    return known if len(known) == len(values) else [_layers(value) for value in values]


_names: dict[bytes, tuple[str, ...]] = {}


def _layers(value: "_Ext | list[str]") -> tuple[str, ...]:
    """Return the names of a body; equal bytes give the same tuple, so that a run's names are decoded once."""
    if isinstance(value, list):
        return tuple(value)
    raw = bytes(value.data)
    names = _names.get(raw)
    if names is None:
        if len(_names) > 1024:
            _names.clear()
        decoded = extension_hook(value.code, raw)
        names = _names[raw] = decoded.values if isinstance(decoded, Names) else ()
    return names


def _layer_column(layers: list[tuple[str, ...]]) -> Words:
    book: dict[str, int] = {}
    codes: dict[tuple[str, ...], npt.NDArray[np.int32]] = {}
    pieces = []
    for names in layers:
        piece = codes.get(names)
        if piece is None:
            piece = np.fromiter((book.setdefault(name, len(book)) for name in names), np.int32, len(names))
            codes[names] = piece
        pieces.append(piece)
    return Words(np.concatenate(pieces), list(book))


def _column(signal: str, bodies: list[_Wire], flat: _Flat) -> pa.Array:
    """Return one signal of all rows; null where the vector is absent, of another length, or marked missing."""
    total = int(flat.lengths.sum())
    whole = flat.vectors[signal]
    absent: npt.NDArray[np.bool_] | None = None
    if whole is not None:
        column = np.frombuffer(whole, "<f4")
    else:
        values = flat.values[signal]
        if not any(value is not None for value in values):
            return pa.nulls(total, pa.float32())
        column, absent = np.zeros(total, np.float32), np.zeros(total, np.bool_)
        for start, length, value in zip(flat.starts.tolist(), flat.lengths.tolist(), values, strict=True):
            vector = _vector(value)
            if vector is None or len(vector) != length:
                absent[start : start + length] = True
            else:
                column[start : start + length] = vector
    for i, body in enumerate(bodies if flat.gaps else ()):
        if at := body.missing.get(signal):
            absent = np.zeros(total, np.bool_) if absent is None else absent
            inside = [j for j in at if 0 <= j < flat.lengths[i]]
            absent[flat.starts[i] + np.array(inside, np.int64)] = True
    return from_numpy(column, pa.float32(), absent)


def _vector(value: Any) -> "npt.NDArray[Any] | None":
    if isinstance(value, _Ext):
        value = extension_hook(value.code, bytes(value.data))
    try:
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes an infinity; `events` keep it exactly
            return None if value is None else np.asarray(value, np.float32)
    except (TypeError, ValueError):
        return None
