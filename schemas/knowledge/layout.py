"""What the formatter needs to know of a text's structure: which tokens open groups of items, and which stand close.

The grammar is read once more with builders that collect this in place of a tree; a value is the range of tokens that
it spans, or a list of such ranges.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from . import lalr
from .tokens import Tokens

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Group:
    """Items between an opening token and a closing one."""

    open: int
    close: int
    items: tuple[Range, ...]
    style: str  # "block": an item a line; "soft": on one line if written so and it fits; "auto": if it fits
    ending: str  # what follows an item that stands on a line of its own


@dataclass(slots=True)
class Layout:
    """The structure of a text, by token."""

    tokens: Tokens
    groups: dict[int, Group] = field(default_factory=dict)  # by opening token
    conditions: dict[int, tuple[Range, ...]] = field(default_factory=dict)  # by `success:`
    dropped: set[int] = field(default_factory=set)  # separators, which are written anew
    close_before: set[int] = field(default_factory=set)  # no blank before these
    close_after: set[int] = field(default_factory=set)
    items: list[Range] = field(default_factory=list)  # the declarations


def layout(tokens: Tokens) -> Layout:
    """Read the structure of a text that parses."""
    made = Layout(tokens)
    made.items, errors = lalr.run(tokens, _tables(), made)
    assert not errors, "the text has been parsed before"
    return made


_LISTS = frozenset({"module", "none", "first", "more", "listed", "same", "listed_name", "groups_first"})
_SOFT = frozenset({"pairs", "fields", "rule_items", "result"})
_CALLS = frozenset(
    {"call", "call_empty", "fact", "function", "typed_function", "procedure", "handler_empty", "handler_with"}
)


@cache
def _tables() -> lalr.Tables:
    return lalr.tables(_builder_of)


def _builder_of(alternative: lalr.Alternative) -> lalr.Builder | None:
    if alternative.transparent:
        return None
    if alternative.builder == "_skip":
        return _skip
    if alternative.builder in _LISTS:
        return _lists(alternative)
    return _node(alternative)


def _skip(target: Layout, parts: list[Any], first: int, last: int) -> list[Range]:
    target.dropped.add(first)
    return []


def _lists(alternative: lalr.Alternative) -> lalr.Builder:
    """Collect the ranges of items, and drop the commas between them."""
    name, symbols = alternative.builder, alternative.parts
    comma = next((at for at, symbol in enumerate(symbols) if symbol in {"COMMA", "SEMI"}), None)

    def build(target: Layout, parts: list[Any], first: int, last: int) -> Any:
        if comma is not None:
            target.dropped.add(parts[comma])
        if name == "none":
            return []
        if name in {"groups_first", "listed_name"}:
            return (first, last)
        if name == "first":
            return [_range(parts[0], first, last)]
        if name in {"more", "listed"} and isinstance(parts[0], list):
            begin = last if not isinstance(parts[-1], tuple) else parts[-1][0]
            parts[0].append((begin, last))
            return parts[0]
        return parts[0] if isinstance(parts[0], list) else (first, last)

    return build


def _range(value: Any, first: int, last: int) -> Range:
    return value if isinstance(value, tuple) else (first, last)


def _node(alternative: lalr.Alternative) -> lalr.Builder:
    """Note the groups of one alternative, and its tokens that stand close."""
    name, symbols = alternative.builder, alternative.parts
    braces = [at for at, symbol in enumerate(symbols) if symbol == "LBRACE"]

    def build(target: Layout, parts: list[Any], first: int, last: int) -> Any:
        for at in braces:
            _braces(target, alternative, parts, at)
        if name in _CALLS:
            target.close_before.add(parts[symbols.index("LPAR")])
        if name in _MARKS:
            _MARKS[name](target, parts, first, last)
        return (first, last)

    return build


def _braces(target: Layout, alternative: lalr.Alternative, parts: list[Any], at: int) -> None:
    symbol = alternative.parts[at + 1]
    found = parts[at + 1]
    items = tuple(found) if isinstance(found, list) else (found,)
    soft = (symbol in _SOFT and alternative.builder != "system_model") or alternative.builder == "nested"
    target.groups[parts[at]] = Group(parts[at], parts[at + 2], items, "soft" if soft else "block", "")


def _listed(place: int) -> Any:
    """Note a list in parentheses or square brackets whose items are the part at a place."""

    def mark(target: Layout, parts: list[Any], first: int, last: int) -> None:
        found = parts[place]
        items = tuple(found) if isinstance(found, list) else (found,)
        target.groups[parts[place - 1]] = Group(parts[place - 1], parts[place + 1], items, "auto", ",")

    return mark


def _written_list(target: Layout, parts: list[Any], first: int, last: int) -> None:
    target.groups[first] = Group(first, last, tuple(parts[1]), "soft", ",")


def _parenthesized(target: Layout, parts: list[Any], first: int, last: int) -> None:
    target.groups[first] = Group(first, last, (_range(parts[1], first + 1, last - 1),), "auto", "")


def _unary(target: Layout, parts: list[Any], first: int, last: int) -> None:
    if target.tokens.types[first] == "MINUS" or target.tokens.spelling(first) == "!":
        target.close_after.add(first)


def _index(target: Layout, parts: list[Any], first: int, last: int) -> None:
    target.close_before.add(parts[1])


def _unit(target: Layout, parts: list[Any], first: int, last: int) -> None:
    target.close_before.add(parts[1])
    target.close_after.add(parts[1])


def _success(target: Layout, parts: list[Any], first: int, last: int) -> None:
    target.conditions[first] = tuple(parts[1])


def _result(target: Layout, parts: list[Any], first: int, last: int) -> None:
    if len(parts) == 3:
        target.dropped.add(last)


_MARKS: dict[str, Any] = {
    "call": _listed(2),
    "function": _listed(3),
    "typed_function": _listed(3),
    "procedure": _listed(3),
    "handler_with": _listed(3),
    "list_type": _listed(1),
    "list": _written_list,
    "group": _parenthesized,
    "unary": _unary,
    "negative_choice": lambda target, parts, first, last: target.close_after.add(first),
    "index": _index,
    "range": _index,
    "range_step": _index,
    "compound_unit": _unit,
    "success": _success,
    "result": _result,
}
