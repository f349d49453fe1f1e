"""How deep the expressions and statements of a module stand within each other."""

from typing import Any

from .tree import Binary, Call, Field, For, If, Index, ListExpr, MapExpr, Node, RangeExpr, Template, Unary


class Nesting:
    """Measures nodes from the inside out, each once, without recursion: a chain may be as long as a text."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, Node]] = {}  # with the node, so that its id stays its own

    def depth(self, node: Node) -> int:
        """Count what stands within each other along the longest chain; each `else if` is within the one before."""
        known = self._known
        pending: list[tuple[Node, bool]] = [(node, False)]
        while pending:
            one, ready = pending.pop()
            if id(one) in known:
                continue
            inner = _inner(one)
            if ready or not inner:
                known[id(one)] = (1 + max((known[id(part)][0] for part in inner), default=0), one)
            else:
                pending.append((one, True))
                pending.extend((part, False) for part in inner)
        return known[id(node)][0]


def _inner(node: Any) -> tuple[Any, ...]:
    if isinstance(node, Binary):
        return (node.left, node.right)
    if isinstance(node, Unary):
        return (node.operand,)
    if isinstance(node, Field):
        return (node.base,)
    if isinstance(node, Index):
        return (node.base, node.index)
    if isinstance(node, Call):
        return node.args
    if isinstance(node, ListExpr):
        return node.items
    if isinstance(node, MapExpr):
        return tuple(item.value for item in node.items)
    if isinstance(node, Template):
        return tuple(part for part in node.parts if not isinstance(part, str))
    if isinstance(node, If):
        return (*node.then, *node.otherwise)
    if isinstance(node, For):
        return node.body
    return (node.low, node.high) if isinstance(node, RangeExpr) else ()
