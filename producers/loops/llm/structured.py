"""Declared types as the form of an answer: a JSON schema for the model, and a strict check of what it gave.

    type Verdict matches { score: float, verdict: "good" | "bad", why: string? }

    step judge: llm.query { prompt: "...", returns: "Verdict", output_var: judged }

The schema is part of the prompt and constrains the backends that can be constrained; the check is made of every answer,
a person's too, and names all that is wrong at once.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from morphogen.schemas import EncodeError, encode
from morphogen.schemas.knowledge.tree import (
    EnumType,
    FieldDecl,
    ListType,
    Module,
    NamedType,
    OptionalType,
    TypeExpr,
)

from .backend import JsonSchema
from .errors import PromptError
from .extract import last_object

_SCALARS: dict[str, str] = {
    "int": "integer",
    "float": "number",
    "number": "number",
    "string": "string",
    "boolean": "boolean",
    "bool": "boolean",
}
_SHOWN = 8  # faults of one answer that are told


@dataclass(frozen=True, slots=True)
class AnswerType:
    """The form an answer must have: its name, the JSON schema, and the declared fields (None for a bare schema)."""

    name: str
    schema: JsonSchema
    fields: tuple[FieldDecl, ...] | None = None
    declared: Mapping[str, tuple[FieldDecl, ...]] | None = None

    def read(self, text: str) -> tuple[Any, str | None]:
        """Return the value in the text, and None or a line that says why it does not fit."""
        value, trouble = last_object(text)
        if value is None:
            return None, trouble
        try:
            faults = self._faults(value)
            if not faults:
                found = value if self.fields is None else _read_record(value, self.fields, self.declared or {})
                encode(found)
                return found, None
        except RecursionError:
            return None, "the answer is nested too deeply"
        except EncodeError as error:
            return None, f"the answer cannot be kept: {error}"
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        return value, "; ".join(faults[:_SHOWN]) + more

    def _faults(self, value: dict[str, Any]) -> list[str]:
        if self.fields is None:
            return list(_schema_faults(value, self.schema, self.schema, "$"))
        return list(_record_faults(value, self.fields, self.declared or {}, "$"))


def declared_types(*modules: Module) -> dict[str, tuple[FieldDecl, ...]]:
    """Return what an answer may be by name: each `type` by its name, each case by its own and its dotted name.

    A later module gives way to an earlier one. A case name that two variants share is known by its dotted name only.
    """
    found: dict[str, tuple[FieldDecl, ...]] = {}
    for module in reversed(modules):
        for domain in module.domains:
            found.update({one.name: one.fields for one in domain.types})
        for system in module.systems:
            short: dict[str, list[tuple[FieldDecl, ...]]] = {}
            for variant in system.variants:
                for case in variant.cases:
                    found[f"{variant.name}.{case.name}"] = case.fields
                    found[f"{system.name}.{case.name}"] = case.fields
                    short.setdefault(case.name, []).append(case.fields)
            found.update({name: fields[0] for name, fields in short.items() if len(fields) == 1})
            for domain in system.domains:
                found.update({one.name: one.fields for one in domain.types})
            found.update({one.name: one.fields for one in system.types})
    return found


def answer_type(wanted: object, declared: Mapping[str, tuple[FieldDecl, ...]]) -> AnswerType:
    """Return the form that `returns:` or `schema:` asks for.

    `wanted` is the name of a declared type or case, or a JSON schema as a map or as JSON text. Raises PromptError.
    """
    if isinstance(wanted, str) and not wanted.lstrip().startswith("{"):
        fields = declared.get(wanted)
        if fields is None:
            known = ", ".join(sorted(declared)) or "none"
            raise PromptError(f"llm.query: no type or case {wanted!r} is declared; known are {known}")
        return AnswerType(wanted, schema_of(fields, declared), fields, declared)
    if isinstance(wanted, str):
        try:
            wanted = json.loads(wanted)
        except ValueError as error:
            raise PromptError(f"llm.query: schema is no JSON: {error}") from error
    if not isinstance(wanted, Mapping) or wanted.get("type") != "object":
        raise PromptError('llm.query: a JSON schema of an answer is a map with "type": "object"')
    return AnswerType("answer", dict(wanted))


def schema_of(fields: tuple[FieldDecl, ...], declared: Mapping[str, tuple[FieldDecl, ...]]) -> JsonSchema:
    """Return the JSON schema (2020-12, without `$schema`) of a declared type; types it names stand under `$defs`."""
    definitions: dict[str, JsonSchema] = {}
    made = _record_schema(fields, declared, definitions)
    return made | {"$defs": definitions} if definitions else made


def _record_schema(
    fields: tuple[FieldDecl, ...],
    declared: Mapping[str, tuple[FieldDecl, ...]],
    definitions: dict[str, JsonSchema],
) -> JsonSchema:
    return {
        "type": "object",
        "properties": {field.name: _schema(field.type, declared, definitions) for field in fields},
        "required": [field.name for field in fields if not isinstance(field.type, OptionalType)],
        "additionalProperties": False,
    }


def _schema(
    kind: TypeExpr, declared: Mapping[str, tuple[FieldDecl, ...]], definitions: dict[str, JsonSchema]
) -> JsonSchema:
    match kind:
        case OptionalType(item=item):
            return {"anyOf": [_schema(item, declared, definitions), {"type": "null"}]}
        case ListType(item=item):
            return {"type": "array", "items": _schema(item, declared, definitions)}
        case EnumType(values=values):
            return {"enum": list(values)}
        case NamedType(name=name, unit=unit) if name in _SCALARS:
            return {"type": _SCALARS[name]} | ({"description": f"in {unit}"} if unit else {})
        case NamedType(name=name):
            if name not in declared:
                raise PromptError(f"llm.query: type {name!r} is not declared")
            if name not in definitions:
                definitions[name] = {}  # a type may name itself
                definitions[name] = _record_schema(declared[name], declared, definitions)
            return {"$ref": f"#/$defs/{name}"}


def _record_faults(
    value: Any, fields: tuple[FieldDecl, ...], declared: Mapping[str, tuple[FieldDecl, ...]], where: str
) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} must be an object, got {_shown(value)}"
        return
    known = {field.name for field in fields}
    for name in value.keys() - known:
        yield f"{where} has no field {name!r}"
    for field in fields:
        if field.name in value:
            yield from _faults(value[field.name], field.type, declared, f"{where}.{field.name}")
        elif not isinstance(field.type, OptionalType):
            yield f"{where}.{field.name} is missing"


def _faults(value: Any, kind: TypeExpr, declared: Mapping[str, tuple[FieldDecl, ...]], where: str) -> Iterator[str]:
    match kind:
        case OptionalType(item=item):
            if value is not None:
                yield from _faults(value, item, declared, where)
        case ListType(item=item):
            if not isinstance(value, list):
                yield f"{where} must be a list, got {_shown(value)}"
                return
            for place, one in enumerate(value):
                yield from _faults(one, item, declared, f"{where}[{place}]")
        case EnumType(values=values):
            if not any(_same(value, one) for one in values):
                yield f"{where} must be one of {', '.join(map(_shown, values))}, got {_shown(value)}"
        case NamedType(name=name) if name in _SCALARS:
            if not _is_scalar(value, _SCALARS[name]):
                yield f"{where} must be {_article(_SCALARS[name])}, got {_shown(value)}"
        case NamedType(name=name):
            yield from _record_faults(value, declared[name], declared, where)


def _read_record(
    value: dict[str, Any], fields: tuple[FieldDecl, ...], declared: Mapping[str, tuple[FieldDecl, ...]]
) -> dict[str, Any]:
    """Return a checked object as the language holds it: fields in the order declared, absent ones null, 3 as 3.0."""
    return {field.name: _read(value.get(field.name), field.type, declared) for field in fields}


def _read(value: Any, kind: TypeExpr, declared: Mapping[str, tuple[FieldDecl, ...]]) -> Any:
    match kind:
        case OptionalType(item=item):
            return None if value is None else _read(value, item, declared)
        case ListType(item=item):
            return [_read(one, item, declared) for one in value]
        case NamedType(name=name) if name in _SCALARS:
            return {"number": float, "integer": int}.get(_SCALARS[name], lambda same: same)(value)
        case NamedType(name=name):
            return _read_record(value, declared[name], declared)
        case _:
            return value


def _schema_faults(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], where: str) -> Iterator[str]:
    """Check against the part of JSON Schema that an answer needs; other keywords bind the model, not the check."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = (root.get("$defs") or {}).get(reference.removeprefix("#/$defs/"))
        if target is None:
            raise PromptError(f"llm.query: the schema refers to {reference}, which it does not define under $defs")
        yield from _schema_faults(value, target, root, where)
        return
    for choices in (schema.get("anyOf"), schema.get("oneOf")):
        if choices and all(any(_schema_faults(value, one, root, where)) for one in choices):
            yield f"{where} fits none of {len(choices)} forms, got {_shown(value)}"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{where} must be {_shown(schema['const'])}, got {_shown(value)}"
    if "enum" in schema and not any(_same(value, one) for one in schema["enum"]):
        yield f"{where} must be one of {', '.join(map(_shown, schema['enum']))}, got {_shown(value)}"
    kinds = schema.get("type", ())
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    if kinds and not any(_is_kind(value, kind) for kind in kinds):
        yield f"{where} must be {' or '.join(map(_article, kinds))}, got {_shown(value)}"
        return
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        yield from (f"{where}.{name} is missing" for name in schema.get("required", ()) if name not in value)
        for name, one in value.items():
            if name in properties:
                yield from _schema_faults(one, properties[name], root, f"{where}.{name}")
            elif schema.get("additionalProperties") is False:
                yield f"{where} has no field {name!r}"
    if isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        for place, one in enumerate(value):
            yield from _schema_faults(one, schema["items"], root, f"{where}[{place}]")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if "minimum" in schema and value < schema["minimum"]:
            yield f"{where} must be at least {schema['minimum']}, got {_shown(value)}"
        if "maximum" in schema and value > schema["maximum"]:
            yield f"{where} must be at most {schema['maximum']}, got {_shown(value)}"


def _is_kind(value: Any, kind: str) -> bool:
    if kind == "null":
        return value is None
    if kind in {"object", "array"}:
        return isinstance(value, dict if kind == "object" else list)
    return _is_scalar(value, kind)


def _is_scalar(value: Any, kind: str) -> bool:
    if kind in {"string", "boolean"}:
        return isinstance(value, str if kind == "string" else bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if kind == "integer":
        return value.is_integer() if isinstance(value, float) else -(2**63) <= value < 2**63
    return _fits_float(value)


def _fits_float(value: int | float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _same(left: Any, right: Any) -> bool:
    return isinstance(left, bool) is isinstance(right, bool) and bool(left == right)


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeio" else f"a {kind}" if kind != "null" else kind


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
