"""What an event is, and the book of all events that this process knows.

    class Checkpoint(Event, type="artifact.checkpoint", version=1):
        uri: str
        loss: float | None = None

Declared like this in any package, it is recorded, projected and queried like the built-in families.
The type is a name in the log, never a Python path: classes move, the log stays.
"""

import builtins
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar, cast

import msgspec

from .errors import SchemaError
from .values import decode, decode_hook, encode

Body = dict[str, Any]
Upcaster = Callable[[Body], Body]
_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_F = TypeVar("_F", bound=Upcaster)


class EventMeta(msgspec.StructMeta):
    """Registers each event class by its type and version, as it is defined."""

    def __new__(  # noqa: D102
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        type: str | None = None,  # noqa: A002
        version: int = 1,
        high_rate: bool = False,
        **config: Any,
    ) -> Any:
        config.setdefault("frozen", True)
        config.setdefault("kw_only", True)
        if config.get("forbid_unknown_fields") or config.get("array_like"):
            raise SchemaError(f"event {name}: forbid_unknown_fields and array_like break readers of other versions")
        taken = {"type", "version", "family", "high_rate"} & set(namespace.get("__annotations__", ()))
        if taken and bases != (msgspec.Struct,):
            raise SchemaError(f"event {name}: the envelope already says {', '.join(sorted(taken))}: rename the field")
        namespace.update(type=type or "", version=version, family=(type or "").split(".")[0], high_rate=high_rate)
        cls = super().__new__(mcls, name, bases, namespace, **config)
        if type is not None:
            _register(cast("builtins.type[Event]", cls), type, version)
        return cls


class Event(msgspec.Struct, metaclass=EventMeta):
    """Base of all events: immutable, keyword-only, written as a msgpack map.

    Class keywords: `type` (dotted lower-case name in the log), `version` (bump it when a field changes its meaning
    or type), `high_rate` (may be dropped, loudly, when a spool is full).
    """

    type: ClassVar[str] = ""
    version: ClassVar[int] = 1
    family: ClassVar[str] = ""
    high_rate: ClassVar[bool] = False

    def encode(self) -> bytes:
        """Return the body as msgpack. Raises EncodeError where a field holds what no event can."""
        return encode(self)


class Unknown(msgspec.Struct, frozen=True):
    """An event that this process cannot read as a class: kept whole, counted, shown."""

    type: str
    version: int
    raw: msgspec.Raw
    reason: str

    def fields(self) -> Any:
        """Return the body as plain values; it is a dict unless the producer wrote something else."""
        return decode(self.raw)


_classes: dict[str, dict[int, type[Event]]] = {}
_decoders: dict[tuple[str, int], msgspec.msgpack.Decoder[Any]] = {}
_upcasters: dict[tuple[str, int], Upcaster] = {}


def _register(cls: type["Event"], type_name: str, version: int) -> None:
    if not _TYPE.fullmatch(type_name):
        raise SchemaError(
            f"event {cls.__name__}: type {type_name!r} must be dotted lower-case words, such as 'health.layer'"
        )
    if not isinstance(version, int) or version < 1:
        raise SchemaError(f"event {cls.__name__}: version must be an integer from 1, got {version!r}")
    known = _classes.setdefault(type_name, {}).get(version)
    same_place = known is not None and (known.__module__, known.__qualname__) == (
        cls.__module__,
        cls.__qualname__,
    )
    if known is not None and not same_place:
        raise SchemaError(
            f"event {cls.__module__}.{cls.__qualname__}: {type_name!r} version {version} is already "
            f"{known.__module__}.{known.__qualname__}: choose another type or bump the version"
        )
    _classes[type_name][version] = cls
    _decoders.pop((type_name, version), None)


def upcaster(type_name: str, *, from_version: int) -> Callable[[_F], _F]:
    """Register a pure `dict -> dict` step that lifts a body of `from_version` to the next version.

    Applied on read only; the log is never rewritten.
    """

    def register(step: _F) -> _F:
        if (type_name, from_version) in _upcasters:
            raise SchemaError(f"{type_name!r} has two upcasters from version {from_version}: keep one")
        _upcasters[type_name, from_version] = step
        return step

    return register


def event_class(type_name: str, version: int | None = None) -> "type[Event] | None":
    """Return the class of a type (its newest version unless one is asked for), or None where it is unknown."""
    versions = _classes.get(type_name)
    if not versions:
        return None
    return versions.get(max(versions) if version is None else version)


def event_classes() -> "Iterator[type[Event]]":
    """Yield every registered class, by type and version."""
    for type_name in sorted(_classes):
        for version in sorted(_classes[type_name]):
            yield _classes[type_name][version]


def decode_event(type_name: str, version: int, raw: msgspec.Raw | bytes) -> Event | Unknown:
    """Read a body as the newest class of its type, through upcasters where it is older; never raises.

    What cannot be read comes back as `Unknown` with the reason: the type is not registered here, the version is
    newer than ours, an upcaster is missing or failed, or the bytes do not fit the class.
    """
    kept = raw if isinstance(raw, msgspec.Raw) else msgspec.Raw(raw)
    versions = _classes.get(type_name)
    if not versions:
        return Unknown(type_name, version, kept, "type not registered in this process")
    newest = max(versions)
    if version > newest:
        return Unknown(type_name, version, kept, f"newer than version {newest}, the newest known here")
    try:
        if version == newest:
            return decoder_of(versions[newest]).decode(raw)  # type: ignore[no-any-return]
        body = decode(raw)
        for step_version in range(version, newest):
            step = _upcasters.get((type_name, step_version))
            if step is None:
                return Unknown(type_name, version, kept, f"no upcaster from version {step_version}")
            body = step(body)
        return msgspec.convert(body, versions[newest], dec_hook=decode_hook)
    except Exception as error:  # noqa: BLE001  an upcaster is foreign code, and one bad body must not stop a reader
        return Unknown(type_name, version, kept, f"does not fit version {newest}: {str(error)[:200]}")


def decoder_of(cls: "type[Event]") -> "msgspec.msgpack.Decoder[Any]":
    """Return the (cached) decoder of an event class, for readers that decode many bodies of one type."""
    key = (cls.type, cls.version)
    decoder = _decoders.get(key)
    if decoder is None:
        decoder = _decoders[key] = msgspec.msgpack.Decoder(cls, dec_hook=decode_hook)
    return decoder
