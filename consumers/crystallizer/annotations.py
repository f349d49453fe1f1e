"""The types that tools are written with: what an annotation means, whether a value is of it, and what values have in common.

A subset of Python's: None, bool, int, float, str, bytes, Any, list[T], dict[K, V], tuple[...] (a list once it has crossed),
`X | Y`, Optional, Union, Literal. An int is a float; a bool is neither.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_SCALARS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str, "bytes": bytes}
_LISTS = frozenset({"list", "List", "Sequence", "Iterable", "tuple", "Tuple"})
_DICTS = frozenset({"dict", "Dict", "Mapping"})
_DEEPEST = 12  # lists and dicts in each other


class NotAType(ValueError):
    """A text that is no annotation of the subset."""


@dataclass(frozen=True)
class Type:
    """One type. `name` is a scalar's, `None`, `Any`, `list`, `dict`, `union` or `literal`; `parts` are its own."""

    name: str
    parts: tuple["Type", ...] = ()
    values: tuple[Any, ...] = ()  # of a literal

    def __str__(self) -> str:
        match self.name:
            case "union":
                return " | ".join(str(part) for part in self.parts)
            case "literal":
                return f"Literal[{', '.join(repr(value) for value in self.values)}]"
            case _ if self.parts:
                return f"{self.name}[{', '.join(str(part) for part in self.parts)}]"
            case _:
                return self.name


ANY = Type("Any")
NONE = Type("None")


@lru_cache(maxsize=1024)
def parse(text: str) -> Type:
    """Read an annotation. Raises NotAType, in one line."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        return read(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, NotAType):
            raise
        raise NotAType(f"{text[:80]!r} is no annotation") from None


def read(node: ast.expr, depth: int = 0) -> Type:
    """Read an annotation that is parsed already. Raises NotAType."""
    if depth > _DEEPEST:
        raise NotAType("an annotation is nested too deep")
    match node:
        case ast.Constant(value=None):
            return NONE
        case ast.Constant(value=str(text)):
            return parse(text)  # a forward reference
        case ast.Name(id="Any" | "object"):
            return ANY
        case ast.Name(id=name) if name in _SCALARS:
            return Type(name)
        case ast.Name(id=name) if name in _LISTS:
            return Type("list", (ANY,))
        case ast.Name(id=name) if name in _DICTS:
            return Type("dict", (ANY, ANY))
        case ast.BinOp(op=ast.BitOr()):
            return union([read(one, depth) for one in _members(node)])
        case ast.Subscript(value=ast.Name(id=name), slice=inside):
            return _generic(name, inside.elts if isinstance(inside, ast.Tuple) else [inside], depth)
        case _:
            raise NotAType(f"{ast.unparse(node)[:80]!r} is no annotation that tools use")


def _members(node: ast.expr) -> Iterator[ast.expr]:
    """Yield what `|` joins; Python's tree of `a | b | c` is as deep as they are many."""
    waiting = [node]
    while waiting:
        match one := waiting.pop():
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                waiting += (right, left)
            case _:
                yield one


def _generic(name: str, inside: list[ast.expr], depth: int) -> Type:
    if name == "Literal":
        values = [one.value for one in inside if isinstance(one, ast.Constant)]
        if len(values) != len(inside):
            raise NotAType("a Literal holds constants")
        return Type("literal", (), tuple(values))
    parts = [read(one, depth + 1) for one in inside if not (isinstance(one, ast.Constant) and one.value is Ellipsis)]
    if name == "Optional" and len(parts) == 1:
        return union((parts[0], NONE))
    if name == "Union":
        return union(parts)
    if name in _LISTS:
        return Type("list", (union(parts),))
    if name in _DICTS and len(parts) == 2:
        return Type("dict", tuple(parts))
    raise NotAType(f"{name[:40]!r} is no type that tools use")


def union(parts: Iterable[Type]) -> Type:
    """Return the smallest type of the subset that holds all of these."""
    flat: list[Type] = []
    for part in parts:
        flat += part.parts if part.name == "union" else [part]
    if ANY in flat:
        return ANY
    lists = [one for one in flat if one.name == "list"]
    dicts = [one for one in flat if one.name == "dict"]
    rest = {one for one in flat if one.name not in {"list", "dict"}}
    if Type("float") in rest:
        rest.discard(Type("int"))
    if lists:
        inside = [part for one in lists for part in one.parts if part.name != "nothing"]
        rest.add(Type("list", (union(inside) if inside else Type("nothing"),)))
    if dicts:
        keys = [one.parts[0] for one in dicts if one.parts[0].name != "nothing"]
        held = [one.parts[1] for one in dicts if one.parts[1].name != "nothing"]
        nothing = Type("nothing")
        rest.add(Type("dict", (union(keys) if keys else nothing, union(held) if held else nothing)))
    if not rest:
        return Type("nothing")
    ordered = sorted(rest, key=lambda one: (one.name == "None", str(one)))
    return ordered[0] if len(ordered) == 1 else Type("union", tuple(ordered))


def infer(values: Iterable[Any]) -> Type:
    """Return the smallest type that holds all of the values.

    What is inside of empty lists and dicts is Any, and so is what is nested too deep for an annotation.
    """
    return _opened(union(_of(value) for value in values))


def _of(value: Any, depth: int = 0) -> Type:
    if value is None:
        return NONE
    for name, kind in _SCALARS.items():
        if type(value) is kind:
            return Type(name)
    if depth == _DEEPEST:
        return ANY
    if isinstance(value, list | tuple):
        return Type("list", (union(_of(item, depth + 1) for item in value),))
    if isinstance(value, Mapping):
        keys, held = ([_of(one, depth + 1) for one in some] for some in (value.keys(), value.values()))
        return Type("dict", (union(keys), union(held)))
    return ANY


def _opened(one: Type) -> Type:
    if one.name == "nothing":
        return ANY
    return Type(one.name, tuple(_opened(part) for part in one.parts), one.values)


def fits(kind: Type, value: Any) -> bool:
    """Tell whether a value is of a type."""
    match kind.name:
        case "Any":
            return True
        case "None":
            return value is None
        case "union":
            return any(fits(part, value) for part in kind.parts)
        case "literal":
            return any(type(one) is type(value) and one == value for one in kind.values)
        case "list":
            return isinstance(value, list | tuple) and all(fits(kind.parts[0], item) for item in value)
        case "dict":
            return isinstance(value, Mapping) and all(
                fits(kind.parts[0], key) and fits(kind.parts[1], item) for key, item in value.items()
            )
        case "float":
            return type(value) in {int, float}
        case name:
            return type(value) is _SCALARS.get(name)
