"""What a training job holds, as what an event can carry.

Numbers keep their exact value: NaN, infinities and int64 survive, bf16 and half widen to float32 without loss.
Vectors travel as little-endian buffers with their dtype. torch is never imported: its tensors are known by their methods.
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from .errors import EncodeError

if TYPE_CHECKING:
    import numpy.typing as npt

    Vector: TypeAlias = npt.NDArray[Any]
else:

    class _IsArray(type):
        def __instancecheck__(cls, value: Any) -> bool:
            return isinstance(value, _numpy().ndarray)

    class Vector(metaclass=_IsArray):
        """The declared type of a vector field; its values are numpy arrays of one dimension."""


# The code of a msgpack extension names the dtype of a vector. Codes are part of the log's format: never reuse one.
_DTYPES = {
    10: "<f4", 11: "<f8", 12: "<i8", 13: "<i4", 14: "<i2", 15: "|i1",
    16: "<u8", 17: "<u4", 18: "<u2", 19: "|u1", 20: "|b1", 21: "<f2",
}  # fmt: skip
_NAMES_CODE = 30
_PACKED_NAMES_CODE = 31  # the same, deflated: layer names repeat themselves, and every event carries them
_PACK_FROM, _UNPACKED_MAX = 256, 64 << 20  # bytes
_INTERNED_MAX = 4096

INT_MIN, INT_MAX = -(2**63), 2**64 - 1  # what msgpack can hold


@cache
def _numpy() -> Any:
    import numpy

    return numpy


@cache
def _codes() -> dict[Any, int]:
    return {_numpy().dtype(name): code for code, name in _DTYPES.items()}


@cache
def _formats() -> dict[str, int]:
    """Return the codes by the format of a buffer: to ask an array for that is quicker than for its dtype."""
    return {memoryview(dtype.type(0).reshape(1)).format: code for dtype, code in _codes().items()}


class Names:
    """An immutable list of names (the layers of a model) that is decoded once and then shared.

    Every event of a run repeats the same names; equal bytes decode to the same object.
    """

    __slots__ = ("_hash", "values")

    def __init__(self, values: Iterable[str] = ()) -> None:
        self.values = tuple(values)
        self._hash = hash(self.values)

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> str:
        return self.values[index]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Names) and self.values == other.values)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Names({list(self.values)!r})"


_interned: dict[bytes, Names] = {}
_names_decoder = msgspec.msgpack.Decoder(tuple[str, ...])
_names_bytes: dict[Names, tuple[int, bytes]] = {}


def vector(value: Any) -> "npt.NDArray[Any]":
    """Return `value` (numpy array, torch tensor, sequence of numbers) as a contiguous 1-D little-endian array.

    bf16 and other types that numpy lacks widen to float32. Raises EncodeError for more than one dimension,
    for elements that are not numbers, and for masked ones.
    """
    if hasattr(value, "detach"):
        value = _tensor_to_numpy(value)
    np = _numpy()
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise EncodeError(
            "a vector leaves nothing out: give its masked elements a value, as in values.filled(math.nan)"
        )
    array = np.asarray(value)
    if array.ndim == 0:
        array = array.reshape(1)
    if array.ndim != 1:
        raise EncodeError(f"a vector has one dimension, got shape {array.shape}: flatten it first")
    if array.dtype not in _codes():
        little = array.dtype.newbyteorder("<")
        if little in _codes():
            array = array.astype(little)
        elif array.dtype.kind in "fV" and array.dtype.itemsize <= 4:
            array = array.astype("<f4")
        elif array.size == 0:
            array = np.empty(0, "<f4")
        else:
            raise EncodeError(f"a vector holds numbers or booleans, got dtype {array.dtype}")
    return np.ascontiguousarray(array)  # type: ignore[no-any-return]


def _tensor_to_numpy(tensor: Any) -> Any:
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        tensor = tensor.cpu()
    if str(tensor.dtype) in {"torch.bfloat16"} or "float8" in str(tensor.dtype):
        tensor = tensor.float()
    return tensor.numpy()


def encode_hook(value: Any) -> Any:
    """Turn what msgspec does not know into what it does: numpy and torch values, Names, paths."""
    if isinstance(value, Names):
        return msgspec.msgpack.Ext(*_packed(value))
    if isinstance(value, _numpy().ndarray):
        try:
            if type(value) is _numpy().ndarray:  # another kind may hide values
                room = memoryview(value)
                if room.ndim == 1 and room.c_contiguous:
                    return msgspec.msgpack.Ext(_formats()[room.format], room)
        except (ValueError, KeyError):  # elements that no buffer can describe, or that have no code
            pass
        if value.ndim == 0:
            return value.tolist()  # None where it is masked
        array = vector(value)
        return msgspec.msgpack.Ext(_codes()[array.dtype], array.data)
    if isinstance(value, _numpy().generic):
        return value.item()
    if hasattr(value, "detach") and hasattr(value, "numel"):
        return value.item() if value.dim() == 0 else encode_hook(vector(value))
    if hasattr(value, "__fspath__"):
        return str(value)
    raise EncodeError(
        f"an event cannot hold a {type(value).__module__}.{type(value).__qualname__}: log a number, a string or a vector"
    )


def _packed(names: Names) -> tuple[int, bytes]:
    packed = _names_bytes.get(names)
    if packed is None:
        raw = msgspec.msgpack.encode(names.values)
        deflated = zlib.compress(raw, 9) if len(raw) >= _PACK_FROM else raw
        packed = (_PACKED_NAMES_CODE, deflated) if len(deflated) < len(raw) else (_NAMES_CODE, raw)
        if len(_names_bytes) >= _INTERNED_MAX:
            _names_bytes.clear()
        _names_bytes[names] = packed
    return packed


def _names(code: int, raw: bytes) -> Names:
    names = _interned.get(raw)
    if names is None:
        text = raw
        if code == _PACKED_NAMES_CODE:
            inflate = zlib.decompressobj()
            text = inflate.decompress(raw, _UNPACKED_MAX)
            if inflate.unconsumed_tail:
                raise ValueError("names of more than 64 MB")
        if len(_interned) >= _INTERNED_MAX:
            _interned.clear()
        names = _interned[raw] = Names(_names_decoder.decode(text))
    return names


def decode_hook(kind: Any, value: Any) -> Any:
    """Read a typed field back: the counterpart of `encode_hook`."""
    if isinstance(value, msgspec.msgpack.Ext):
        value = extension_hook(value.code, bytes(value.data))
    if isinstance(value, kind):
        return value
    if kind is Vector and isinstance(value, list | tuple):
        return vector(value)
    if kind is Names and isinstance(value, list | tuple):
        return Names(value)
    raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")


def extension_hook(code: int, data: "memoryview | bytes") -> Any:
    """Read an extension value where no type is declared; an unknown code is kept as it is."""
    if code in _DTYPES:
        return _numpy().frombuffer(data, _DTYPES[code])
    if code in {_NAMES_CODE, _PACKED_NAMES_CODE}:
        try:
            return _names(code, bytes(data))
        except (zlib.error, ValueError, msgspec.MsgspecError) as error:
            raise ValueError(f"damaged names: {error}") from error
    return msgspec.msgpack.Ext(code, bytes(data))


encoder = msgspec.msgpack.Encoder(enc_hook=encode_hook)
_generic = msgspec.msgpack.Decoder(ext_hook=extension_hook)


def encode(value: Any) -> bytes:
    """Encode `value` as msgpack, as all bodies in the log are. Raises EncodeError with the reason."""
    try:
        return encoder.encode(value)
    except (TypeError, OverflowError, ValueError, RecursionError) as error:
        raise EncodeError(f"cannot encode a {type(value).__name__}: {error}") from error


def decode(raw: bytes | memoryview | msgspec.Raw) -> Any:
    """Decode any msgpack of the log into plain values; vectors become numpy arrays, names become Names."""
    return _generic.decode(raw)


def plain(value: Any, depth: int = 12, _above: tuple[int, ...] = ()) -> Any:
    """Return any object as nested dicts, lists, strings, numbers: for configurations, which may hold anything.

    What has no such form becomes its `repr`, cut to 1,000 characters; nesting beyond `depth` and what holds itself
    too. Of several keys with one text the later ones are `key~2`, `key~3`. Never raises.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float.__float__(value)  # of a subclass too, which msgpack would not take
    if isinstance(value, str):
        return sound(value)
    if isinstance(value, int):
        whole = int.__index__(value)
        return whole if INT_MIN <= whole <= INT_MAX else _digits(whole)
    try:
        return _told(value) if id(value) in _above else _plain(value, depth, (*_above, id(value)))
    except Exception:  # noqa: BLE001  an object of the user's, whose every method may fail
        return _told(value)


def _plain(value: Any, depth: int, above: tuple[int, ...]) -> Any:
    if depth <= 0:
        return _told(value)
    if isinstance(value, Mapping):
        named: dict[str, Any] = {}
        for key, item in value.items():
            named[_apart(sound(key), named)] = plain(item, depth - 1, above)
        return named
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, depth - 1, above) for item in value]
    if isinstance(value, _numpy().generic) or (hasattr(value, "detach") and hasattr(value, "dim") and value.dim() == 0):
        return plain(value.item(), depth - 1)
    if isinstance(value, _numpy().ndarray):
        return plain(value.tolist(), depth) if value.size <= 1000 else _told(value)
    if hasattr(value, "__fspath__"):
        return sound(value)
    try:
        return plain(msgspec.to_builtins(value), depth - 1)
    except (TypeError, ValueError, RecursionError):
        pass
    if is_dataclass(value) and not isinstance(value, type):  # one of its fields is nothing that msgspec knows
        return {field.name: plain(getattr(value, field.name), depth - 1, above) for field in fields(value)}
    public = {key: item for key, item in getattr(value, "__dict__", {}).items() if not key.startswith("_")}
    if public and type(value).__module__ in {"argparse", "types"}:
        return plain(public, depth - 1, above)
    return _told(value)


def _apart(name: str, taken: Mapping[str, Any]) -> str:
    """Return a name that is not taken: the name itself, or with a number behind it."""
    number, other = 1, name
    while other in taken:
        number += 1
        other = f"{name}~{number}"
    return other


def _digits(whole: int) -> str:
    try:
        return str(whole)
    except ValueError:  # of more digits than Python writes
        return hex(whole)


def _told(value: Any) -> str:
    try:
        return sound(repr(value)[:1000])
    except Exception:  # noqa: BLE001
        return f"<{type(value).__qualname__}>"


def sound(value: object) -> str:
    """Return `str(value)` as text that the log can hold; never raises.

    Stray bytes, kept by Python as lone surrogates, are escaped; what cannot be shown is told by the name of its type.
    """
    try:
        text = str(value)
    except Exception:  # noqa: BLE001  an object of the user's
        text = f"<{type(value).__qualname__}>"
    return str.encode(text, "utf-8", "backslashreplace").decode()


def line_of(error: BaseException, most: int = 500) -> str:
    """Return the first line of an exception's text, `most` characters of it, as the log can hold it; never raises."""
    return next((line for line in sound(error).splitlines() if line.strip()), "no details")[:most]
