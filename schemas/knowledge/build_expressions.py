# ruff: noqa: D102  (a builder is named after its alternative in grammar.lark, which says what it reads)
"""Builders of expressions and types: what each alternative of the grammar becomes in the tree.

A builder takes the values of the rule's parts, where a token's value is its place, and the places of the rule's first
and last token. It is named after its alternative in `grammar.lark`.
"""

import math
import re
from typing import Any

from .diagnostics import Diagnostic
from .nesting import Nesting
from .strings import Hole, Text, pieces, plain, unknown_escapes
from .tokens import MAX_DEPTH, Tokens, key_of, tokenize
from .tree import (
    Binary,
    Call,
    EnumType,
    Expr,
    Field,
    FieldDecl,
    Index,
    ListExpr,
    ListType,
    Literal,
    MapExpr,
    Name,
    NamedType,
    OptionalType,
    Property,
    RangeExpr,
    Span,
    Template,
    TypeExpr,
    Unary,
    Window,
)

NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}

_PATH = re.compile(r"[ \t]*([^\W\d]\w*)((?:\.(?:[^\W\d]\w*|[0-9]+))*)[ \t]*")
_QUANTITY = re.compile(r"([0-9_.]+(?:[eE][+-]?[0-9]+)?)\s*(.*)", re.DOTALL)
_SPELLED = {"&&": "and", "||": "or"}
_SAME_BITS = {"true": True, "false": False, "null": None}
_MOST_ITEMS = 10**12  # of a window
_LONG = 2 * MAX_DEPTH  # characters; an expression of fewer cannot be nested too deep


class ExpressionBuilder:
    """Holds what builders need: the tokens, and what is wrong beyond the grammar."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.text = tokens.text
        self.starts = tokens.starts
        self.ends = tokens.ends
        self.lines = tokens.lines
        self.diagnostics: list[Diagnostic] = []
        self._nesting = Nesting()

    def span(self, first: int, last: int) -> Span:
        """Make the span from one token to another."""
        return self.lines.span(self.starts[first], self.ends[last])

    def spelling(self, place: int) -> str:
        """Return a token as it stands in the text."""
        return self.text[self.starts[place] : self.ends[place]]

    def report(self, code: str, span: Span, message: str, *, hint: str | None = None) -> None:
        """Note an error that the grammar does not see."""
        self.diagnostics.append(Diagnostic(code, "error", span, message, (), hint))

    # Lists --------------------------------------------------------------------------------------------------------

    def none(self, _: list[Any], first: int, last: int) -> list[Any]:
        return []

    def first(self, parts: list[Any], first: int, last: int) -> list[Any]:
        return parts

    def more(self, parts: list[Any], first: int, last: int) -> list[Any]:
        parts[0].append(parts[1])
        return parts[0]  # type: ignore[no-any-return]

    def listed(self, parts: list[Any], first: int, last: int) -> list[Any]:
        parts[0].append(parts[2])
        return parts[0]  # type: ignore[no-any-return]

    def same(self, parts: list[Any], first: int, last: int) -> Any:
        return parts[0]

    # Names --------------------------------------------------------------------------------------------------------

    def bare(self, parts: list[Any], first: int, last: int) -> str:
        return self.spelling(first)

    def quoted(self, parts: list[Any], first: int, last: int) -> str:
        return plain(self.spelling(first))

    def longer(self, parts: list[Any], first: int, last: int) -> str:
        return f"{parts[0]}.{self.spelling(last)}"

    def key(self, place: int) -> str:
        """Return the name that a KEY token gives: all before its colon, without quotes."""
        raw = self.text[self.starts[place] : self.ends[place]].removesuffix(":").rstrip()
        if raw.isidentifier():
            return raw
        name = key_of(raw)
        return plain(name) if name[0] in "\"'" else name

    def pair(self, parts: list[Any], first: int, last: int) -> Property:
        return Property(self.key(first), parts[1], span=self.span(first, last))

    # Types --------------------------------------------------------------------------------------------------------

    def field(self, parts: list[Any], first: int, last: int) -> FieldDecl:
        return FieldDecl(self.key(first), parts[1], span=self.span(first, last))

    def named_type(self, parts: list[Any], first: int, last: int) -> NamedType:
        return NamedType(parts[0], span=self.span(first, last))

    def measured_type(self, parts: list[Any], first: int, last: int) -> NamedType:
        return NamedType(parts[0], parts[2], span=self.span(first, last))

    def compound_unit(self, parts: list[Any], first: int, last: int) -> str:
        return "".join(self.spelling(place) for place in range(first, last + 1))

    def percent(self, parts: list[Any], first: int, last: int) -> str:
        return self.spelling(first)

    def list_type(self, parts: list[Any], first: int, last: int) -> ListType:
        items: list[TypeExpr] = parts[1]
        span = self.span(first, last)
        if len(items) == 1:
            return ListType(items[0], span=span)
        for item in items:
            if not isinstance(item, NamedType) or item.unit is not None:
                self.report(
                    "bad-type",
                    item.span,
                    "a shape consists of names",
                    hint="a list type names the one type of its items",
                )
        sizes = tuple(item.name for item in items if isinstance(item, NamedType))
        return ListType(NamedType("int", span=span), sizes, span=span)

    def string_choice(self, parts: list[Any], first: int, last: int) -> Literal:
        return Literal(self.quoted(parts, first, last), span=self.span(first, last))

    def number_choice(self, parts: list[Any], first: int, last: int) -> Literal:
        return self._plain_number(parts[0])

    def negative_choice(self, parts: list[Any], first: int, last: int) -> Literal:
        return self._plain_number(_negated(parts[1], self.span(first, last)))

    def _plain_number(self, number: Literal) -> Literal:
        if number.unit is not None:
            self.report("bad-type", number.span, "a choice of a type is a number without a unit")
        return number

    def union(self, parts: list[Any], first: int, last: int) -> TypeExpr:
        """Make one type of its alternatives: a choice of literals, or one type that may be null."""
        given: list[TypeExpr | Literal] = parts[0]
        some = [one for one in given if not (isinstance(one, Literal) and one.value is None)]
        span = self.span(first, last)
        made: TypeExpr
        choices = [one for one in some if isinstance(one, Literal)]
        types = [one for one in some if not isinstance(one, Literal)]
        if types and (choices or len(types) > 1):
            self.report(
                "bad-type",
                span,
                "a type is one type, or a choice of literals",
                hint='such as `float` or `"mem" | "compute"`',
            )
        if types:
            made = types[0]
        elif choices:
            made = EnumType(tuple(one.value for one in choices if one.value is not None), span=span)
        else:
            self.report("bad-type", span, "null alone is no type", hint="write `float | null` or `float?`")
            made = NamedType("null", span=span)
        return OptionalType(made, span=span) if len(some) < len(given) and some else made

    def optional(self, parts: list[Any], first: int, last: int) -> TypeExpr:
        made = self.union(parts, first, last - 1)
        return made if isinstance(made, OptionalType) else OptionalType(made, span=self.span(first, last))

    # Literals -----------------------------------------------------------------------------------------------------

    def true(self, parts: list[Any], first: int, last: int) -> Literal:
        return Literal(True, span=self.span(first, last))

    def false(self, parts: list[Any], first: int, last: int) -> Literal:
        return Literal(False, span=self.span(first, last))

    def null(self, parts: list[Any], first: int, last: int) -> Literal:
        return Literal(None, span=self.span(first, last))

    def integer(self, parts: list[Any], first: int, last: int) -> Literal:
        span = self.span(first, last)
        return Literal(self._number(self.spelling(first), span), span=span)

    real = integer

    def quantity(self, parts: list[Any], first: int, last: int) -> Literal:
        span = self.span(first, last)
        found = _QUANTITY.fullmatch(self.spelling(first))
        assert found is not None
        return Literal(self._number(found[1], span), found[2], span=span)

    def _number(self, spelled: str, span: Span) -> int | float:
        spelled = spelled.replace("_", "")  # separators, wherever they stand: Python's own reading is stricter
        if len(spelled) <= 300 and spelled.isdigit():
            return int(spelled)
        whole = not any(mark in spelled for mark in ".eE")
        value = float(spelled) if len(spelled) <= 100_000 else math.inf
        if math.isinf(value):
            self.report("number-too-large", span, "this number is larger than a float can hold (about 1.8e308)")
            return 0
        return int(spelled) if whole else value

    def string(self, parts: list[Any], first: int, last: int) -> Literal | Template:
        start, end = self.starts[first], self.ends[first]
        raw = self.text[start:end]
        if "\\" not in raw and "{{" not in raw and "\n" not in raw and raw[:3] not in {'"""', "'''"}:
            return Literal(raw[1:-1] if len(raw) > 1 and raw[-1] == raw[0] else raw[1:], span=self.span(first, first))
        return self._template(raw, start, self.span(first, first))

    def _template(self, raw: str, start: int, span: Span) -> Literal | Template:
        for begin, stop in unknown_escapes(raw):
            escape = raw[begin:stop]
            self.diagnostics.append(
                Diagnostic(
                    "unknown-escape",
                    "warning",
                    self.lines.span(start + begin, start + stop),
                    f"`{escape}` is no escape and stays as it is",
                    (),
                    f"write `\\{escape}` to say so",
                )
            )
        parts: list[str | Expr] = []
        for piece in pieces(raw, start):
            if isinstance(piece, Text):
                parts.append(piece.value)
            elif (inner := self._hole(piece)) is not None:
                parts.append(inner)
        if all(isinstance(part, str) for part in parts):
            return Literal("".join(part for part in parts if isinstance(part, str)), span=span)
        return Template(tuple(parts), span=span)

    def _hole(self, hole: Hole) -> Expr | None:
        """Read the expression between `{{` and `}}`. A path such as `axiom.0` needs no parser."""
        found = _PATH.fullmatch(self.text, hole.start, hole.end)
        if found is None or found[1] in _SAME_BITS or found[1] == "not":
            return self.hole_expression(hole)
        begin = found.start(1)
        made: Expr = Name(found[1], span=self.lines.span(begin, found.end(1)))
        at = found.end(1)
        for name in found[2].split(".")[1:]:
            at += 1 + len(name)
            span = self.lines.span(begin, at)
            if name[0].isdigit():
                digit = Literal(self._number(name, span), span=self.lines.span(at - len(name), at))
                made = self.checked(Index(made, digit, span=span))
            else:
                made = self.checked(Field(made, name, span=span))
        return made

    def hole_expression(self, hole: Hole) -> Expr | None:
        """Read an expression inside a string, whose tokens stand where they stand in the file."""
        raise NotImplementedError

    def hole_tokens(self, hole: Hole) -> Tokens:
        """Cut the expression of a hole into tokens."""
        return tokenize(self.text, self.lines, hole.start, hole.end)

    # Expressions --------------------------------------------------------------------------------------------------

    def checked(self, node: Any) -> Any:
        """Return a node unless it is nested too deep to be worked with: then null, and an error."""
        span: Span = node.span
        if self._too_deep(node, "this expression is", "name its parts: use a function, a fact or a list"):
            return Literal(None, span=Span(span.start, span.start, span.line, span.column))
        return node

    def _too_deep(self, node: Any, what: str, hint: str) -> bool:
        """Tell whether a node is nested too deep to be worked with, and say so, once in a text."""
        span: Span = node.span
        if span.end - span.start <= _LONG or self._nesting.depth(node) <= MAX_DEPTH:
            return False
        if not any(one.code == "nested-too-deep" for one in self.diagnostics):
            self.report("nested-too-deep", span, f"{what} nested deeper than {MAX_DEPTH}", hint=hint)
        return True

    def name(self, parts: list[Any], first: int, last: int) -> Name:
        return Name(self.spelling(first), span=self.span(first, first))

    def group(self, parts: list[Any], first: int, last: int) -> Expr:
        return parts[1]  # type: ignore[no-any-return]

    def binary(self, parts: list[Any], first: int, last: int) -> Expr:
        left, place, right = parts
        spelled = self.spelling(place)
        if not spelled.isascii() or spelled[0] == "n":
            spelled = "not in"
        made = Binary(_SPELLED.get(spelled, spelled), left, right, span=self.span(first, last))
        return self.checked(made)  # type: ignore[no-any-return]

    def unary(self, parts: list[Any], first: int, last: int) -> Expr:
        operand: Expr = parts[1]
        span = self.span(first, last)
        if self.tokens.types[first] == "MINUS":
            if isinstance(operand, Literal) and type(operand.value) in {int, float}:
                return _negated(operand, span)
            return self.checked(Unary("-", operand, span=span))  # type: ignore[no-any-return]
        return self.checked(Unary("not", operand, span=span))  # type: ignore[no-any-return]

    def member(self, parts: list[Any], first: int, last: int) -> Expr:
        return self.checked(Field(parts[0], self.spelling(last), span=self.span(first, last)))  # type: ignore[no-any-return]

    def place(self, parts: list[Any], first: int, last: int) -> Expr:
        index = self.integer([last], last, last)
        return self.checked(Index(parts[0], index, span=self.span(first, last)))  # type: ignore[no-any-return]

    def index(self, parts: list[Any], first: int, last: int) -> Expr:
        return self.checked(Index(parts[0], parts[2], span=self.span(first, last)))  # type: ignore[no-any-return]

    def call_empty(self, parts: list[Any], first: int, last: int) -> Expr:
        return self._call(parts[0], [], parts[3], first, last)

    def call(self, parts: list[Any], first: int, last: int) -> Expr:
        return self._call(parts[0], parts[2], parts[4], first, last)

    def _call(self, function: Expr, arguments: list[Expr], window: Window | None, first: int, last: int) -> Expr:
        name = self.dotted_name(function)
        if name is None:
            self.report("not-callable", function.span, "only a name can be called", hint="such as `max(a, b)`")
            name = "?"
        return self.checked(Call(name, tuple(arguments), window, span=self.span(first, last)))  # type: ignore[no-any-return]

    def dotted_name(self, expression: Expr) -> str | None:
        """Return `a.b.c` of an expression that is a name with fields, None for any other."""
        names: list[str] = []
        while isinstance(expression, Field):
            names.append(expression.name)
            expression = expression.base
        return ".".join([expression.name, *reversed(names)]) if isinstance(expression, Name) else None

    def empty_list(self, parts: list[Any], first: int, last: int) -> ListExpr:
        return ListExpr((), span=self.span(first, last))

    def list_(self, parts: list[Any], first: int, last: int) -> ListExpr:
        return ListExpr(tuple(parts[1]), span=self.span(first, last))

    def map_(self, parts: list[Any], first: int, last: int) -> MapExpr:
        return MapExpr(tuple(parts[1]), span=self.span(first, last))

    def range_(self, parts: list[Any], first: int, last: int) -> RangeExpr:
        return RangeExpr(parts[2], parts[4], None, parts[6], span=self.span(first, last))

    def range_step(self, parts: list[Any], first: int, last: int) -> RangeExpr:
        return RangeExpr(parts[2], parts[4], parts[6], parts[8], span=self.span(first, last))

    def linear(self, parts: list[Any], first: int, last: int) -> bool:
        return False

    def logarithmic(self, parts: list[Any], first: int, last: int) -> bool:
        return True

    # Windows ------------------------------------------------------------------------------------------------------

    def no_window(self, parts: list[Any], first: int, last: int) -> None:
        return None

    def window_last(self, parts: list[Any], first: int, last: int) -> Window:
        count = self.integer([parts[2]], parts[2], parts[2])
        assert isinstance(count.value, int)
        if not 0 < count.value <= _MOST_ITEMS:
            self.report("bad-window", count.span, "a window holds at least one item and at most a trillion")
        return Window(min(max(count.value, 1), _MOST_ITEMS), None, tuple(parts[3]), span=self.span(first, last))

    def window_duration(self, parts: list[Any], first: int, last: int) -> Window:
        length = self.quantity([parts[1]], parts[1], parts[1])
        factor = NANOSECONDS.get(length.unit or "")
        nanoseconds = 0
        if factor is None:
            self.report(
                "bad-window", length.span, f"a window is a time, and {length.unit} is none", hint="such as `over 5m`"
            )
        else:
            assert isinstance(length.value, int | float)
            nanoseconds = round(length.value * factor)
            if not 0 < nanoseconds < 2**63:
                self.report("bad-window", length.span, "a window is at least a nanosecond and at most 292 years long")
        return Window(None, nanoseconds, tuple(parts[2]), span=self.span(first, last))

    def window_groups(self, parts: list[Any], first: int, last: int) -> Window:
        return Window(None, None, tuple(parts[0]), span=self.span(first, last))

    def groups_first(self, parts: list[Any], first: int, last: int) -> list[str]:
        return [self.spelling(last)]

    def listed_name(self, parts: list[Any], first: int, last: int) -> list[str]:
        parts[0].append(self.spelling(last))
        return parts[0]  # type: ignore[no-any-return]


def _negated(number: Literal, span: Span) -> Literal:
    value = number.value
    assert isinstance(value, int | float)
    return Literal(-value, number.unit, span=span)
