"""Every node below a node, in the order of the source."""

from collections.abc import Iterator
from dataclasses import fields

from ..tree import Node

_CHILDREN: dict[type[Node], tuple[str, ...]] = {}


def _child_fields(cls: type[Node]) -> tuple[str, ...]:
    if cls not in _CHILDREN:
        _CHILDREN[cls] = tuple(one.name for one in fields(cls) if one.name != "span")
    return _CHILDREN[cls]


def nodes(root: object) -> Iterator[Node]:
    """Yield the node itself, if it is one, and all that stand below it."""
    todo = [root]
    while todo:
        one = todo.pop()
        if isinstance(one, tuple):
            todo.extend(reversed(one))
        elif isinstance(one, Node):
            yield one
            todo.extend(getattr(one, name) for name in reversed(_child_fields(type(one))))
