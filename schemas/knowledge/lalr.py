"""The parser's engine: Lark's LALR tables for `grammar.lark`, run over columns of tokens, with recovery.

Lark turns the grammar into tables; they are run here and not by Lark's own loop because that is several times as fast,
builds no tree of its own, and because a parser that goes on after an error has to reach into its stack. Recovery is the
`error` token of yacc: the innermost list of items that can take an ERROR takes one, and reading goes on with the
next thing that can begin an item of that list.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from .diagnostics import nearest
from .tokens import CLOSER, END, SOFT, Tokens

Builder = Callable[[Any, list[Any], int, int], Any]
"""Makes the value of a rule from those of its parts and the places of its first and last token. A token's value is its
place."""

# A shift is the next state; a reduction is (builder, number of parts, goto of the rule by the state below).
Reduction = tuple[Builder | None, int, str]
Row = dict[str, int | Reduction]

MOST_ERRORS = 100  # after so many the rest of a file is not read


@dataclass(frozen=True, slots=True)
class Grammar:
    """The tables of the grammar, the same for all builders: an action is the next state, or a rule."""

    rows: tuple[dict[str, "int | Alternative"], ...]
    gotos: tuple[dict[str, int], ...]
    starts: dict[str, int]
    symbols: tuple[str, ...]  # what was read last when a state is entered


@dataclass(frozen=True, slots=True)
class Alternative:
    """One alternative of a rule: the name of its builder, the symbols of its right side, the rule's own name."""

    builder: str
    parts: tuple[str, ...]
    rule: str
    transparent: bool  # one part, whose value is the rule's


@dataclass(frozen=True, slots=True)
class Tables:
    """The grammar's tables with the builders in them, and what was worked out from them while parsing."""

    rows: tuple[Row, ...]
    gotos: tuple[dict[str, int], ...]
    starts: dict[str, int]
    symbols: tuple[str, ...]
    settled: tuple[dict[str, dict[str, int]], ...]  # state below, rule, kind of the next token -> state


@dataclass(frozen=True, slots=True)
class Unexpected:
    """A token that could not stand where it did.

    `expected` are the kinds of token that could; `inside` are the grammar's symbols read so far and still open,
    outermost first. A misspelled keyword is read as the one that it meant, which is then `meant`; a key without its
    colon is read as if it had one, `lacks_colon`.
    """

    start: int
    end: int
    kind: str
    before: str  # how the token before is spelled
    expected: frozenset[str]
    inside: tuple[str, ...]
    meant: str | None = None
    lacks_colon: bool = False


@cache
def grammar() -> Grammar:
    """Let Lark make the tables; done once in a process, in about 0.2 s.

    Raises ImportError where Lark is not installed.
    """
    from lark import Lark
    from lark.lexer import Lexer
    from lark.parsers.lalr_analysis import Shift

    class Elsewhere(Lexer):
        """Stands in for Lark's lexer: tokens are made by `tokens.py`."""

        def __init__(self, conf: object) -> None: ...

        def lex(self, *_: object) -> Iterable[Any]:  # type: ignore[override]
            return ()

    source = resources.files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")
    made: Any = Lark(source, parser="lalr", lexer=Elsewhere, start=["module", "expression"])
    table = made.parser.parser._parse_table
    rules: dict[Any, Alternative] = {}
    rows: list[dict[str, int | Alternative]] = [{} for _ in table.states]
    gotos: list[dict[str, int]] = [{} for _ in table.states]
    symbols = [""] * len(rows)
    for state, actions in table.states.items():
        for symbol, (action, argument) in actions.items():
            if action is not Shift:
                rows[state][symbol] = rules.get(argument) or rules.setdefault(argument, _alternative(argument))
            else:
                symbols[argument] = symbol
                (rows if symbol.isupper() else gotos)[state][symbol] = argument
    return Grammar(tuple(rows), tuple(gotos), dict(table.start_states), tuple(symbols))


def _alternative(rule: Any) -> Alternative:
    parts = tuple(str(part.name) for part in rule.expansion)
    name = str(rule.alias or rule.origin.name)
    return Alternative(name, parts, str(rule.origin.name), len(parts) == 1 and rule.options.expand1 and not rule.alias)


def tables(builder: Callable[[Alternative], Builder | None]) -> Tables:
    """Put builders into the grammar's tables; None stands for a rule that hands on the value of its only part."""
    found = grammar()
    reductions: dict[Alternative, Reduction] = {}
    rows: list[Row] = []
    for row in found.rows:
        made: Row = {}
        for symbol, action in row.items():
            if isinstance(action, Alternative):
                if action not in reductions:
                    reductions[action] = (builder(action), len(action.parts), action.rule)
                made[symbol] = reductions[action]
            else:
                made[symbol] = action
        rows.append(made)
    return Tables(tuple(rows), found.gotos, found.starts, found.symbols, tuple({} for _ in rows))


def run(
    tokens: Tokens, tables: Tables, target: Any, start: str = "module", *, recover: bool = True
) -> tuple[Any, list[Unexpected]]:
    """Read tokens to the value of the start rule, and what was unexpected on the way.

    The value is None where nothing could be read, which only happens without recovery. Recovery changes the tokens.
    """
    rows, settled = tables.rows, tables.settled
    types = tokens.types
    state = tables.starts[start]
    states = [state]
    values: list[Any] = []
    begins: list[int] = []
    place = 0
    kind = types[0]
    errors: list[Unexpected] = []
    while True:
        action = rows[state].get(kind)
        if action.__class__ is tuple:
            build, count, rule = action
            if build is None:  # only after the kind of the next token has changed; see _settle
                state = states[-1] = tables.gotos[states[-2]][rule]
                continue
            if count:
                begin = begins[-count]
                value = build(target, values[-count:], begin, place - 1)
                del states[-count:], values[-count:], begins[-count:]
            else:
                begin = place
                value = build(target, [], place, place - 1)
            try:
                state = settled[states[-1]][rule][kind]
            except KeyError:
                state = _settle(tables, states[-1], rule, kind)
            states.append(state)
            values.append(value)
            begins.append(begin)
        elif action is not None:
            states.append(action)  # type: ignore[arg-type]
            values.append(place)
            begins.append(place)
            state = action  # type: ignore[assignment]
            place += 1
            kind = types[place] if kind != END else END
        elif (soft := SOFT.get(kind)) is not None and (soft in rows[state] or SOFT.get(soft) in rows[state]):
            kind = soft
        elif kind == END and len(states) == 2:
            return values[0], errors
        else:
            errors.append(_unexpected(tokens, tables, states, place))
            if not recover:
                return None, errors
            if errors[-1].meant is not None:
                types[place] = errors[-1].meant.upper()
            elif errors[-1].lacks_colon:
                types[place] = "KEY"
                if types[place + 1] == "EQUALS":
                    del types[place + 1], tokens.starts[place + 1], tokens.ends[place + 1]
            else:
                _drop_item(tokens, tables, states, values, begins, place, everything=len(errors) >= MOST_ERRORS)
            state = states[-1]
            kind = types[place]


def _settle(tables: Tables, below: int, rule: str, kind: str) -> int:
    """Find the state after a rule, past all rules that only hand it on; kept, for a literal is handed on eight times."""
    state = tables.gotos[below][rule]
    while isinstance(action := tables.rows[state].get(kind), tuple) and action[0] is None:
        state = tables.gotos[below][action[2]]
    tables.settled[below].setdefault(rule, {})[kind] = state
    return state


def _unexpected(tokens: Tokens, tables: Tables, states: list[int], place: int) -> Unexpected:
    """Describe the error at a place; a near miss of a keyword that could stand there counts as that keyword."""
    could = expected(tables, states)
    kind = tokens.types[place]
    meant = None
    if kind == "NAME" and "NAME" not in could:
        meant = nearest(tokens.spelling(place), (word.lower() for word in could if word in SOFT and word != "SUCCESS"))
    return Unexpected(
        tokens.starts[place],
        tokens.ends[place],
        kind,
        tokens.spelling(place - 1) if place else "",
        could,
        tuple(tables.symbols[state] for state in states[1:]),
        meant,
        meant is None and "KEY" in could and kind in _KEY_LIKE and _value_follows(tokens, place),
    )


def _value_follows(tokens: Tokens, place: int) -> bool:
    """Tell whether a value stands on the same line behind a word: then the word is a key without its colon."""
    after = tokens.types[place + 1]
    return (after in _VALUE_LIKE or after in SOFT) and not tokens.first_on_line(place + 1)


def expected(tables: Tables, states: list[int]) -> frozenset[str]:
    """Find the kinds of token that can really come next, by trying each that the table's row names."""
    return frozenset(
        kind for kind in tables.rows[states[-1]] if kind != "ERROR" and _after(tables, states, kind) is not None
    )


def _after(tables: Tables, states: list[int], kind: str) -> list[int] | None:
    """Work out the states after a token, None where it would not be taken: rows also name some that goto refuses."""
    ahead = states[-64:]  # reductions that a single token sets off reach less far back than the largest rule is long
    kept = len(states) - len(ahead)
    while True:
        action = tables.rows[ahead[-1]].get(kind)
        if action is None:
            return ahead if kind == END and kept + len(ahead) == 2 else None
        if not isinstance(action, tuple):
            return [*ahead, action]
        _, count, rule = action
        if count >= len(ahead):
            return None if not kept else _after(tables, [*states[:kept], *ahead], kind)
        if count:
            del ahead[-count:]
        ahead.append(tables.gotos[ahead[-1]][rule])


def _drop_item(
    tokens: Tokens,
    tables: Tables,
    states: list[int],
    values: list[Any],
    begins: list[int],
    place: int,
    *,
    everything: bool,
) -> None:
    """Put an ERROR in place of what is left of the broken item.

    Goes back to the innermost list that takes an ERROR, and drops tokens up to the next that can begin an item of that
    list, or closes it. Brackets are balanced here, so a group is dropped whole.
    """
    types = tokens.types
    depth = _open_brackets(types, values)
    while (ahead := _after(tables, states, "ERROR")) is None or (everything and len(states) > 2):
        states.pop()
        values.pop()
        begins.pop()
    depth -= _open_brackets(types, values)
    starters = expected(tables, ahead)
    stop = place
    while (kind := types[stop]) != END:
        if depth == 0 and not everything and (kind in _CLOSERS or _begins_item(tokens, stop, starters)):
            break
        depth += 1 if kind in CLOSER else -1 if kind in _CLOSERS else 0
        stop += 1
    for column, new in ((types, "ERROR"), (tokens.starts, tokens.starts[place]), (tokens.ends, tokens.starts[place])):
        column[place:stop] = [new]  # type: ignore[list-item]


def _open_brackets(types: list[str], values: list[Any]) -> int:
    """Count the brackets on the stack that were opened and not yet closed."""
    kinds = [types[value] for value in values if value.__class__ is int]
    return sum(kind in CLOSER for kind in kinds) - sum(kind in _CLOSERS for kind in kinds)


def _begins_item(tokens: Tokens, place: int, starters: frozenset[str]) -> bool:
    """Tell whether an item of a list begins here. A mere name only does at the beginning of its line."""
    kind = tokens.types[place]
    if kind in starters and (kind == "KEY" or kind in SOFT):
        return True
    return (kind in starters or SOFT.get(kind) in starters) and kind not in _SEPARATORS and tokens.first_on_line(place)


_CLOSERS = frozenset(CLOSER.values())
_SEPARATORS = frozenset({"COMMA", "SEMI"})
_KEY_LIKE = frozenset({"NAME", "STRING"})
_VALUE_LIKE = frozenset({"NAME", "STRING", "INT", "FLOAT", "QUANTITY", "LSQB", "LBRACE", "MINUS", "EQUALS"})
