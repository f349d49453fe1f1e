"""Conditions with everything put in that they name: bodies of facts, values of constants."""

from dataclasses import replace

from ..index import Entry, Index
from ..tree import Binary, Call, Expr, Fact, Field, ListExpr, Name, Unary
from ..tree import Index as At
from ..wording import dotted_name

_DEEPEST = 32  # facts within facts
_MOST = 2_000  # parts of one condition: facts that call facts twice grow like powers of two


class TooLarge(Exception):
    """A condition has more parts than are looked at."""


class Inliner:
    """Puts names in. All that one of them makes counts together: beyond some thousand parts it raises TooLarge."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._left = _MOST

    def inlined(self, expr: Expr, system: str, item: tuple[str, Entry] | None) -> Expr:
        """Put the bodies of facts and the values of constants in, and one name for an item however it is reached."""
        return self._expr(expr, system, item, 0)

    def _expr(self, expr: Expr, system: str, item: tuple[str, Entry] | None, depth: int) -> Expr:
        self._left -= 1
        if self._left < 0:
            raise TooLarge
        if depth > _DEEPEST:
            return expr

        def deeper(one: Expr) -> Expr:
            return self._expr(one, system, item, depth)

        match expr:
            case Name(name=name):
                return self._name(expr, name, system, item, depth)
            case Field(base=base):
                dotted = dotted_name(expr)
                if dotted is not None and item is None:
                    entry = self._index.find("constant", dotted, system) or self._index.find("fact", dotted, system)
                    if entry is not None:
                        return self._name(expr, dotted, system, item, depth)
                return replace(expr, base=deeper(base))
            case Unary(operand=operand):
                return replace(expr, operand=deeper(operand))
            case Binary(left=left, right=right):
                return replace(expr, left=deeper(left), right=deeper(right))
            case ListExpr(items=items):
                return replace(expr, items=tuple(deeper(one) for one in items))
            case At(base=base, index=index):
                return replace(expr, base=deeper(base), index=deeper(index))
            case Call(name=name, args=args):
                fact = self._index.find("fact", name, system)
                if fact is not None and (item is not None or (args and _is_latest(args[0]))):
                    return self._body(fact, depth)
                if name == "trace.latest" and args:
                    case = self._index.find("case", dotted_name(args[0]) or "", system)
                    return expr if case is None else Name(f"@{case.full}", span=expr.span)
                return replace(expr, args=tuple(deeper(one) for one in args))
            case _:
                return expr

    def _name(self, expr: Expr, name: str, system: str, item: tuple[str, Entry] | None, depth: int) -> Expr:
        if item is not None and name == item[0]:
            return Name(f"@{item[1].full}", span=expr.span)
        constant = self._index.find("constant", name, system)
        if constant is not None:
            return self._expr(getattr(constant.node, "value", expr), constant.system, None, depth + 1)
        if item is None:
            fact = self._index.find("fact", name, system)
            if fact is not None:
                return self._body(fact, depth)
            case = self._index.find("case", name, system)
            if case is not None:
                return Name(f"@{case.full}", span=expr.span)
        return expr

    def _body(self, fact: Entry, depth: int) -> Expr:
        assert isinstance(fact.node, Fact)
        case = self._index.find("case", fact.node.case, fact.system)
        if case is None:
            return Name(f"@fact {fact.full}")
        return self._expr(fact.node.body, fact.system, (fact.node.parameter, case), depth + 1)


def _is_latest(expr: Expr) -> bool:
    if isinstance(expr, Call):
        return expr.name == "trace.latest"
    return dotted_name(expr) == "trace.latest" or (isinstance(expr, Name) and expr.name[:1].isupper())
