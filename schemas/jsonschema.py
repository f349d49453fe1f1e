"""All registered events as one JSON Schema document (draft 2020-12)."""

from typing import Any

import msgspec

from .event import Event, event_classes
from .values import Names, Vector


def json_schema(classes: "list[type[Event]] | None" = None) -> dict[str, Any]:
    """Return a document with one definition an event (`type@version`) and the envelope fields described once."""
    chosen = list(event_classes()) if classes is None else classes
    definitions: dict[str, Any] = {}
    for cls in chosen:
        (schema,), parts = msgspec.json.schema_components([cls], schema_hook=hook, ref_template="#/$defs/{name}")
        body = parts.pop(cls.__name__) if schema.get("$ref", "").endswith(f"/{cls.__name__}") else schema
        definitions.update(parts)
        definitions[f"{cls.type}@{cls.version}"] = {
            **body,
            "x-high-rate": cls.high_rate,
            "x-family": cls.family,
        }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Morphogen events",
        "$defs": definitions,
    }


def hook(kind: Any) -> dict[str, Any]:
    """Return the schema of a type of ours that is no struct."""
    if kind is Vector:
        return {
            "type": "array",
            "items": {"type": "number"},
            "description": "vector, little-endian buffer on the wire",
        }
    if kind is Names:
        return {"type": "array", "items": {"type": "string"}}
    raise NotImplementedError(kind)
