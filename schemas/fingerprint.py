"""Hold a schema to its version: a field that changes without a bump is caught before it reaches a log."""

import hashlib
from typing import Any

import msgspec

from .event import Event


def fingerprint(cls: type[Event]) -> str:
    """Return 16 hex digits over the names, types and defaults of an event's fields; order does not count."""
    fields = sorted(
        (field.encode_name, _describe(field.type), field.required, _default(field))
        for field in msgspec.structs.fields(cls)
    )
    return hashlib.sha256(repr((cls.type, cls.version, fields)).encode()).hexdigest()[:16]


def changed(classes: "list[type[Event]]", locked: dict[str, str]) -> list[str]:
    """Return a line for each class whose fingerprint differs from the locked one of the same type and version."""
    return [
        f"{cls.type} version {cls.version} changed its fields: bump its version and write an upcaster"
        for cls in classes
        if locked.get(key(cls), fingerprint(cls)) != fingerprint(cls)
    ]


def key(cls: type[Event]) -> str:
    """Return the name under which a class is locked: `type@version`."""
    return f"{cls.type}@{cls.version}"


def _describe(kind: Any) -> str:
    return kind.__qualname__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)


def _default(field: Any) -> str:
    if field.default is not msgspec.NODEFAULT:
        return repr(field.default)
    if field.default_factory is not msgspec.NODEFAULT:
        return f"{field.default_factory.__name__}()"
    return "required"
