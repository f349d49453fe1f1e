"""Resolved types: what a declaration stands for once every name in it is known."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from .logic import Value, is_list, known
from .tree import EnumType, FieldDecl, ListType, NamedType, OptionalType, TypeExpr
from .units import PLAIN, UNITS, Unit

Kind = Literal["int", "float", "string", "boolean", "list", "map", "null", "any"]

SCALARS: Mapping[str, Kind] = {
    "int": "int",
    "float": "float",
    "string": "string",
    "boolean": "boolean",
    "bool": "boolean",
    "list": "list",
    "map": "map",
    "any": "any",
    "symbolic": "any",
}
"""Names of the types that every module knows."""


@dataclass(frozen=True, slots=True)
class Type:
    """What values of an expression or a field are.

    `unit` is None for a number written without one, which takes the unit of what it meets. `values` are those of an enum.
    `item` is that of a list. `fields` are those of a declared type or a case (`name`). `optional`: it may be unknown by
    declaration.
    """

    kind: Kind
    unit: Unit | None = None
    values: tuple[str | int | float | bool, ...] = ()
    item: "Type | None" = None
    fields: "Mapping[str, Type] | None" = field(default=None, compare=False, hash=False)
    name: str | None = None
    optional: bool = False

    @property
    def number(self) -> bool:
        """Whether it is an int or a float."""
        return self.kind in ("int", "float")

    def __str__(self) -> str:
        if self.name is not None:
            text = f"a `{self.name}`"
        elif self.values:
            text = " | ".join(f'"{one}"' if isinstance(one, str) else str(one).lower() for one in self.values)
        elif self.kind == "list":
            text = f"[{self.item}]" if self.item is not None and self.item.kind != "any" else "list"
        elif self.number and self.unit is not None and (self.unit.name or not self.unit.dimensionless):
            text = f"{self.kind} in {self.unit}"
        else:
            text = self.kind
        return text + ("?" if self.optional else "")


ANY = Type("any")
NULL = Type("null")
BOOLEAN = Type("boolean")
STRING = Type("string")
INT = Type("int")
FLOAT = Type("float")
LIST = Type("list", item=ANY)
MAP = Type("map")


def kind_of(value: Value) -> Kind:
    """Return the kind of a plain value."""
    value = known(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "string"
    return "list" if is_list(value) else "map" if isinstance(value, Mapping) else "any"


def resolve(expr: TypeExpr, declared: Callable[[str], Type | None]) -> Type | None:
    """Return what a type expression stands for; None where it names a type or a unit that nobody declared.

    `declared` looks up types of the module by name.
    """
    match expr:
        case OptionalType(item=item):
            inner = resolve(item, declared)
            return None if inner is None else replace(inner, optional=True)
        case ListType(item=item):
            inner = resolve(item, declared)
            return None if inner is None else Type("list", item=inner)
        case EnumType(values=values):
            return Type(kind_of(values[0]) if values else "any", values=values)
        case NamedType(name=name, unit=unit):
            if unit is not None and unit not in UNITS:
                return None
            if name in SCALARS:
                kind = SCALARS[name]
                if kind in ("int", "float"):
                    return Type(kind, unit=PLAIN if unit is None else UNITS[unit])
                return Type(kind, item=ANY if kind == "list" else None)
            return declared(name)


def problem_of(value: Value, wanted: Type) -> str | None:
    """Say why a plain value is not of a type; None where it is. An int is a float, never the other way about."""
    value = known(value)
    if wanted.kind == "any":
        return None
    if value is None:
        return None if wanted.optional or wanted.kind == "null" else f"is missing; it must be {wanted}"
    kind = kind_of(value)
    if kind != wanted.kind and not (wanted.kind == "float" and kind == "int"):
        return f"is {kind} ({_short(value)}); it must be {wanted}"
    if wanted.values and not any(value == one and kind_of(one) == kind for one in wanted.values):
        near = _nearest(value, wanted)
        return f"is {_short(value)}; it must be one of {wanted}" + (f" (did you mean {_short(near)}?)" if near else "")
    if wanted.kind == "list" and wanted.item is not None:
        for place, one in enumerate(value):
            inner = problem_of(one, replace(wanted.item, optional=True))
            if inner is not None:
                return f"item {place} {inner}"
    if wanted.fields is not None:
        return _problem_of_fields(value, wanted)
    return None


def _problem_of_fields(value: Mapping[str, Value], wanted: Type) -> str | None:
    assert wanted.fields is not None
    for name, type_ in wanted.fields.items():
        inner = problem_of(value.get(name), type_)
        if inner is not None:
            return f"`{name}` {inner}"
    unknown = next((name for name in value if name not in wanted.fields), None)
    return None if unknown is None else f"has no field `{unknown}`"


def fields_of(decls: tuple[FieldDecl, ...], declared: Callable[[str], Type | None]) -> dict[str, Type]:
    """Return the resolved fields of a declaration; one that cannot be resolved is of any type."""
    return {one.name: resolve(one.type, declared) or ANY for one in decls}


def _short(value: Value) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _nearest(value: Value, wanted: Type) -> str | None:
    from .diagnostics import nearest

    strings = [one for one in wanted.values if isinstance(one, str)]
    return nearest(value, strings) if isinstance(value, str) else None
