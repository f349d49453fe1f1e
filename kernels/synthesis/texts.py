"""Texts: taken apart into what is always the same and what comes from a value (FlashFill: Gulwani, POPL 2011).

A text is tried as JSON of a value, as lines or items put together from a list, as a row of constants and known texts, and at
last by its skeleton: the words and numbers at the same places of every example, each explained as a text or number of its own.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .chance import enough
from .program import Const, Expr, Op, Ref, Shown, Text
from .values import is_date, kind_of

if TYPE_CHECKING:
    from .explaining import Explainer

_SPECS = ("", ".4f", ".2f", ".3f", ".1f", ".0f", ".6f", ".5f", ",", ",.2f", ".1%", ".2%", ".0%", "02d", "03d", "04d", "05d", "06d",
          "08d", ".2e", ".3e", ".1e", "g", ".3g", ".4g", ".6g", "+.2f", "+.3f", "+.4f", "+.1%", ">4", ">6")  # fmt: skip
_DATES = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%Y%m%d", "%B %d, %Y", "%d %B %Y", "%d %b %Y", "%b %d, %Y", "%A", "%a", "%Y-%m", "%Y",
          "%B", "%b", "%Y/%m/%d", "%m-%d", "%d", "%m")  # fmt: skip
_JOINTS = ("\n", ", ", "; ", ",", " | ", " ", "-", "/", "|")
_TOKEN = re.compile(r"(?<!\d)\d{4}-\d\d-\d\d(?!\d)|\d+(?:\.\d+)?|[A-Za-z]+|\s+|.", re.DOTALL)
_STATES = 1500
_LONGEST = 4000


def text(at: "Explainer", target: Sequence[str]) -> Expr | None:
    """Return an expression with these texts, or None."""
    if max(map(len, target)) > 100_000:
        return None
    if all(value[:1] in ("{", "[") for value in target):
        found = _as_json(at, target)
        if found is not None:
            return found
    if at.level <= 1:
        found = _as_joined(at, target, varying=True)
        if found is not None:
            return found
    if all(is_date(value) for value in target):
        from .dates import dated

        found = dated(at, target)
        if found is not None:
            return found
    if max(map(len, target)) > _LONGEST:
        return None
    found = _as_pieces(at, target)
    if found is not None or at.reached < at.limits[-1]:
        return found
    found = _as_joined(at, target, varying=False) if at.level == 0 else None
    if found is None and at.level <= 1:
        found = _as_pieces(at, target, gaps=True)
    return found or _as_skeleton(at, target)


def _as_json(at: "Explainer", target: Sequence[str]) -> Expr | None:
    try:
        values = [json.loads(value) for value in target]
    except (ValueError, RecursionError):
        return None
    end = "\n" if all(value.endswith("\n") for value in target) else ""
    bare = [value.removesuffix("\n") if end else value for value in target]
    ways: list[tuple[str, dict[str, Any], tuple[Any, ...]]] = [
        ("json_text", {}, ()),
        ("json_tight", {"separators": (",", ":")}, ()),
        *(("json_indent", {"indent": width}, (width,)) for width in (2, 4, 1)),
    ]
    for name, options, operands in ways:
        for ordered in (True, False):
            if all(
                json.dumps(value, sort_keys=ordered, **options) == one for value, one in zip(values, bare, strict=True)
            ):
                found = at.explain(values)
                if found is None:
                    return None
                op = {
                    "json_text": "json_sorted",
                    "json_tight": "json_tight_sorted",
                    "json_indent": "json_indent_sorted",
                }
                whole = Op(op[name] if ordered else name, (found, *map(Const, operands)))
                return Text((whole, Const(end))) if end else whole
    return None


def _as_joined(at: "Explainer", target: Sequence[str], *, varying: bool) -> Expr | None:
    """Find lines, or items between marks, that come from a list, with what stands before and after them."""
    lengths = {tuple(map(len, entry.values)) for entry in at.bank.of_kind("list") if entry.size <= 8}
    for joint in _JOINTS:
        pieces = [value.split(joint) for value in target]
        counts = [len(part) for part in pieces]
        if max(counts) < 2 or (len(set(counts)) > 1) != varying or (not varying and (joint != "\n" or max(counts) < 4)):
            continue
        extras = sorted(
            {counts[0] - length[0] for length in lengths if _apart(counts, length) and sum(length) > len(length) // 2}
        )
        for extra in [one for one in extras if 0 <= one <= 8]:
            for head in range(extra + 1):
                found = _around(at, pieces, joint, head, extra - head)
                if found is not None:
                    return found
    return None


def _apart(counts: Sequence[int], length: Sequence[int]) -> bool:
    return len({count - one for count, one in zip(counts, length, strict=True)}) == 1 and max(length) > 1


def _around(at: "Explainer", pieces: Sequence[list[str]], joint: str, head: int, tail: int) -> Expr | None:
    from .listing import mapped

    middle = [part[head : len(part) - tail] for part in pieces]
    if not any(middle) or len({item for part in middle for item in part}) < 2:
        return None
    items = mapped(at, middle)
    if items is None:
        return None
    whole: list[Expr] = [Op("joined", (items, Const(joint)))]
    for texts, before in (
        ([joint.join(part[:head]) for part in pieces], True),
        ([joint.join(part[len(part) - tail :]) for part in pieces] if tail else None, False),
    ):
        if texts is None or (before and not head):
            continue
        found = at.explain(texts)
        if found is None:
            return None
        whole = [found, Const(joint), *whole] if before else [*whole, Const(joint), found]
    return flat_text(whole) if len(whole) > 1 else whole[0]


def flat_text(parts: Sequence[Expr]) -> Expr:
    """Return texts put together, with constants side by side as one and texts inside texts opened."""
    row: list[Expr] = []
    for part in parts:
        for one in part.parts if isinstance(part, Text) else (part,):
            if isinstance(one, Const) and isinstance(one.value, str):
                if not one.value:
                    continue
                last = row[-1] if row else None
                if isinstance(last, Const):
                    row[-1] = Const(str(last.value) + one.value)
                    continue
            row.append(one)
    return Text(tuple(row)) if row else Const("")


class _Piece:
    """A known text, and what it costs to use it."""

    __slots__ = ("cost", "expr", "values")

    def __init__(self, expr: Expr, values: list[str], cost: float) -> None:
        self.expr, self.values, self.cost = expr, values, cost


def _pieces(at: "Explainer", target: Sequence[str]) -> list[_Piece]:
    found: list[_Piece] = []
    seen: set[tuple[str, ...]] = set()

    def offer(expr: Expr, values: list[str], cost: float) -> None:
        if all(value in one for value, one in zip(values, target, strict=True)) and any(values):
            key = tuple(values)
            if key not in seen and len(set(key)) > 1:
                seen.add(key)
                found.append(_Piece(expr, values, cost))

    for entry in at.bank.of_kind("str"):
        offer(entry.expr, entry.values, entry.size + 1.0)
        if all(is_date(value) for value in entry.values):
            for spec in _DATES:
                shown = at.bank.op("date_as", entry.size + 2, entry, spec)
                if shown is not None:
                    offer(shown.expr, shown.values, shown.size + 1.0)
    for day in [one for one in at.bank.of_kind("str") if one.size <= 2 and all(map(is_date, one.values))][:3]:
        for step in [one for one in at.bank.of_kind("int") if one.size <= 2][:6]:
            later = at.bank.op("date_add", day.size + step.size + 1, day, step)
            if later is not None:
                offer(later.expr, later.values, later.size + 1.0)
    for entry in at.bank.of_kind("int", "float", "number"):
        if entry.size > 9:
            continue
        for number, spec in enumerate(_SPECS):
            try:
                if f"{entry.values[0]:{spec}}" not in target[0]:
                    continue
                values = [f"{value:{spec}}" for value in entry.values]
            except (ValueError, OverflowError):
                continue
            offer(Shown(entry.expr, spec), values, entry.size + 1.0 + (number + 4) / 40)
        at.bank.search.tick(2)
    for entry in at.bank.of_kind("list"):
        if entry.size <= 7 and all(isinstance(item, str) for value in entry.values for item in value):
            for joint in _JOINTS:
                offer(
                    Op("joined", (entry.expr, Const(joint))),
                    [joint.join(value) for value in entry.values],
                    entry.size + 1.5,
                )
    return found


def _as_pieces(at: "Explainer", target: Sequence[str], *, gaps: bool = False) -> Expr | None:
    """Cover the texts from left to right with constants and known texts, at the least cost.

    Where nothing known leads on, `gaps` lets a word, number or date be one that is explained for itself.
    """
    pieces = _pieces(at, target)
    if not pieces and not gaps:
        return None
    unknown: dict[str, list[str]] = {}
    count = len(target)
    ends = tuple(map(len, target))
    memo: dict[tuple[int, ...], tuple[float, tuple[Expr, ...]] | None] = {}

    def rest(state: tuple[int, ...]) -> tuple[float, tuple[Expr, ...]] | None:
        if state in memo:
            return memo[state]
        if len(memo) > _STATES:
            return None
        memo[state] = None  # a state cannot lead to itself: each piece goes on
        at.bank.search.tick()
        common = _common(target, state)
        best: tuple[float, tuple[Expr, ...]] | None = None
        if all(position + common == end for position, end in zip(state, ends, strict=True)):
            best = (_weight(common), (Const(target[0][state[0] :]),) if common else ())
        for piece in pieces:
            start = state[0]
            while True:
                start = target[0].find(piece.values[0], start, state[0] + common + len(piece.values[0]))
                if start < 0:
                    break
                skip = start - state[0]
                start += 1
                if skip > common:
                    break
                if not all(
                    target[place].startswith(piece.values[place], state[place] + skip) for place in range(count)
                ):
                    continue
                after = tuple(state[place] + skip + len(piece.values[place]) for place in range(count))
                if after == state:
                    continue
                following = rest(after)
                if following is None:
                    continue
                cost = _weight(skip) + piece.cost + following[0]
                if best is None or cost < best[0]:
                    before = (Const(target[0][state[0] : state[0] + skip]),) if skip else ()
                    best = (cost, (*before, piece.expr, *following[1]))
        if best is None and gaps:
            best = _over_gap(target, state, common, unknown, rest)
        memo[state] = best
        return best

    try:
        found = rest((0,) * count)
    except RecursionError:
        return None
    if found is None or not enough(target, len(pieces)):
        return None
    parts: list[Expr] = []
    for part in found[1]:
        explained: Expr | None = part
        if isinstance(part, Ref) and part.name in unknown:
            explained = _token(at, unknown[part.name]) if len(found[1]) > 1 else None
        if explained is None:
            return None
        parts.append(explained)
    if len(parts) == 1 and not isinstance(parts[0], Shown):
        return parts[0]
    return flat_text(parts)


_Rest = tuple[float, tuple[Expr, ...]] | None


def _over_gap(
    target: Sequence[str],
    state: tuple[int, ...],
    common: int,
    unknown: dict[str, list[str]],
    rest: Callable[[tuple[int, ...]], _Rest],
) -> _Rest:
    """Leave out the token in which the texts first differ, and go on behind it."""
    start = state[0] + common
    while start > state[0] and (target[0][start - 1].isalnum() or target[0][start - 1] in ".-"):
        start -= 1
    skip = start - state[0]
    found = [_TOKEN.match(value, position + skip) for value, position in zip(target, state, strict=True)]
    tokens = [one.group() for one in found if one is not None]
    if (
        len(tokens) < len(target)
        or len({_class(token) for token in tokens}) > 1
        or len(set(tokens)) < 2
        or len(unknown) > 12
    ):
        return None
    following = rest(tuple(position + skip + len(token) for position, token in zip(state, tokens, strict=True)))
    if following is None:
        return None
    name = f"<gap {len(unknown)}>"
    unknown[name] = tokens
    before = (Const(target[0][state[0] : start]),) if skip else ()
    return (_weight(skip) + 8.0 + following[0], (*before, Ref(name), *following[1]))


def _weight(length: int) -> float:
    return 1.0 + length / 20 if length else 0.0


def _common(target: Sequence[str], state: Sequence[int]) -> int:
    first = target[0][state[0] :]
    length = len(first)
    for value, position in zip(target[1:], state[1:], strict=True):
        other = value[position : position + length]
        if other != first[:length]:
            place = 0
            while place < len(other) and other[place] == first[place]:
                place += 1
            length = place
        length = min(length, len(other))
    return length


def _as_skeleton(at: "Explainer", target: Sequence[str]) -> Expr | None:
    """Explain each word and number that differs, where all texts have the same row of them."""
    rows = [_TOKEN.findall(value) for value in target]
    if len({len(row) for row in rows}) != 1 or not 1 < len(rows[0]) <= 400 or at.level > 1:
        return None
    columns = list(zip(*rows, strict=True))
    if any(len({_class(token) for token in column}) != 1 for column in columns):
        return None
    parts: list[Expr] = []
    differing = sum(len(set(column)) > 1 for column in columns)
    if differing > 12:
        return None
    for column in columns:
        if len(set(column)) == 1:
            parts.append(Const(column[0]))
            continue
        if len(columns) == 1:
            return None
        found = _token(at, list(column))
        if found is None:
            return None
        parts.append(found)
    return flat_text(parts)


def _class(token: str) -> str:
    if is_date(token):
        return "date"
    return (
        "number" if token[0].isdigit() else "word" if token[0].isalpha() else "mark" if not token.isspace() else "space"
    )


def _token(at: "Explainer", column: list[str]) -> Expr | None:
    if _class(column[0]) == "number":
        decimals = {len(token.partition(".")[2]) for token in column}
        values: list[Any] = [float(token) if "." in token else int(token) for token in column]
        if max(decimals) and kind_of(values) == "float":
            places = max(decimals)
            found = at.explain(values, conditions=False)
            return Shown(found, f".{places}f" if len(decimals) == 1 else "") if found is not None else None
        if not max(decimals) and all(str(value) == token for value, token in zip(values, column, strict=True)):
            found = at.explain(values, conditions=False)
            return Shown(found, "") if found is not None else None
        if not max(decimals):
            return at.explain(column, conditions=False)
    return at.explain(column) if _class(column[0]) in ("word", "mark", "date") else None
