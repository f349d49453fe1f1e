"""The same expression with other names, or with parts exchanged."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from .program import NODES, Const, Each, Pairs, Ref


def rewritten(node: Any, change: Callable[[Any], Any]) -> Any:
    """Return a node with `change` done to each part, the innermost first; `change` returns the part or another."""
    if isinstance(node, tuple):
        return tuple(rewritten(part, change) for part in node)
    if not isinstance(node, NODES):
        return node
    if isinstance(node, Const):
        return change(node)
    fields = {name: rewritten(getattr(node, name), change) for name in node.__struct_fields__}
    return change(msgspec.structs.replace(node, **fields))


def simple(node: Any) -> Any:
    """Return a node with lists that are gone through twice in a row gone through once."""

    def change(part: Any) -> Any:
        if isinstance(part, Each) and part.where is None and part.value == Ref(part.var):
            return part.over
        if isinstance(part, Each | Pairs) and part.where is None and isinstance(part.over, Each):
            inner = part.over
            if inner.var == part.var and inner.value == Ref(inner.var):
                return msgspec.structs.replace(part, over=inner.over, where=inner.where)
        return part

    return rewritten(node, change)


def renamed(node: Any, names: Mapping[str, str]) -> Any:
    """Return an expression with these names read, and bound, under others."""

    def change(part: Any) -> Any:
        if isinstance(part, Ref):
            return Ref(names.get(part.name, part.name))
        if hasattr(part, "var") and part.var in names:
            return msgspec.structs.replace(part, var=names[part.var])
        return part

    return rewritten(node, change)
