"""Hold a schema to its version: a field that changes without a bump is caught before it reaches a log."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from .event import Event
from .jsonschema import hook

_WORDS = ("title", "description", "discriminator")  # of a JSON Schema: what says nothing about the bytes
_VALUES = ("default", "enum", "const")  # hold values, not schemas


def fingerprint(cls: type[Event]) -> str:
    """Return 16 hex digits over the names, types and defaults of an event's fields; order does not count.

    What a nested struct or an enum is made of does not count either: `shape` has it.
    """
    fields = sorted(
        (field.encode_name, _describe(field.type), field.required, _default(field))
        for field in msgspec.structs.fields(cls)
    )
    return hashlib.sha256(repr((cls.type, cls.version, fields)).encode()).hexdigest()[:16]


def shape(cls: type[Event]) -> dict[str, Any] | str:
    """Return what a lock file holds of a class: its JSON Schema without words, with all that it is made of in place.

    Of a class that has no JSON Schema it is the fingerprint.
    """
    try:
        (schema,), parts = msgspec.json.schema_components([cls], schema_hook=hook, ref_template="{name}")
    except TypeError:
        return fingerprint(cls)
    plain: dict[str, Any] = json.loads(json.dumps(_plain(schema, parts, ())))
    return plain


def changed(classes: "list[type[Event]]", locked: Mapping[str, Any]) -> list[str]:
    """Return a line for each class that differs from the locked one of the same type and version.

    New fields with a default are no difference. Where `locked` has a fingerprint, as older files have, they are.
    """
    return [
        f"{cls.type} version {cls.version} changed its fields: bump its version and write an upcaster"
        for cls in classes
        if key(cls) in locked and not _holds(locked[key(cls)], cls)
    ]


def key(cls: type[Event]) -> str:
    """Return the name under which a class is locked: `type@version`."""
    return f"{cls.type}@{cls.version}"


def _holds(locked: Any, cls: type[Event]) -> bool:
    if isinstance(locked, str):
        return locked == fingerprint(cls)
    return _grown(locked, shape(cls))


def _grown(old: Any, new: Any) -> bool:
    """Tell whether a schema is the old one but for new fields with a default, at any depth."""
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_grown, old, new))
    if not isinstance(old, dict) or not isinstance(new, dict):
        return json.dumps(old) == json.dumps(new)  # as text a NaN is itself
    before, after = old.get("properties", {}), new.get("properties", {})
    required = set(new.get("required", ()))
    if not before.keys() <= after.keys() or required != set(old.get("required", ())):
        return False
    rest = old.keys() - {"properties", "required"}
    return (
        rest == new.keys() - {"properties", "required"}
        and all(_grown(old[name], new[name]) for name in rest)
        and all(_grown(field, after[name]) for name, field in before.items())
    )


def _plain(node: Any, parts: Mapping[str, Any], inside: tuple[str, ...]) -> Any:
    """Return a schema with its references in place; one to what it stands in stays a reference."""
    if isinstance(node, list):
        return [_plain(one, parts, inside) for one in node]
    if not isinstance(node, dict):
        return node
    if (name := node.get("$ref")) is not None and name not in inside:
        more = {word: value for word, value in node.items() if word != "$ref"}
        return _plain({**parts[name], **more}, parts, (*inside, name))
    found: dict[str, Any] = {}
    for word, value in node.items():
        if word == "properties":
            found[word] = {field: _plain(one, parts, inside) for field, one in value.items()}
        elif word == "default" and node.get("uniqueItems"):  # a set, which has another order in each process
            found[word] = sorted(value, key=json.dumps)
        elif word not in _WORDS:
            found[word] = value if word in _VALUES else _plain(value, parts, inside)
    return found


def _describe(kind: Any) -> str:
    return kind.__qualname__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)


def _default(field: Any) -> str:
    if field.default is not msgspec.NODEFAULT:
        unordered = isinstance(field.default, set | frozenset)
        return repr(sorted(field.default, key=repr) if unordered else field.default)
    if field.default_factory is not msgspec.NODEFAULT:
        return f"{field.default_factory.__name__}()"
    return "required"
