"""Random facts and random traces, and the reference that says what is true of them."""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from morphogen.schemas.knowledge.aggregates import Item
from morphogen.schemas.knowledge.evaluate import Scope, evaluate_fact
from morphogen.schemas.knowledge.stream import Items, flags, integers, lists, numbers, texts
from morphogen.schemas.knowledge.tree import Binary, Call, Expr, Fact, Field, ListExpr, Literal, Name, Unary, Window
from morphogen.schemas.knowledge.types import ANY, BOOLEAN, FLOAT, INT, STRING, Type

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND
CASE = "Test.Probe"
LISTS = {"xs": FLOAT, "ns": INT, "ss": STRING, "any": ANY}
FIELDS: dict[str, Type] = {
    "x": FLOAT, "y": FLOAT, "n": INT, "s": STRING, "b": BOOLEAN, "layer": STRING,
    **{name: Type("list", item=item) for name, item in LISTS.items()},
}  # fmt: skip
KINDS = {"x": "number", "y": "number", "n": "int", "s": "text", "b": "flag", "layer": "text"} | dict.fromkeys(
    LISTS, "list"
)
MAKE = {"number": numbers, "int": integers, "text": texts, "flag": flags, "list": lists}

# Sums of these are exact, so that equality and order do not hang on the last bit of a sum.
EXACT = st.integers(-64, 64).map(lambda n: n / 8)
GENERIC = st.sampled_from([0.317, 1.719, -2.233, 5.551, 0.0713])  # no sum or mean of the others comes near them


EDGES = [2**53, 2**53 + 1, 2**63 - 1, -(2**63) + 1, -(2**63)]
WHOLE = st.one_of(st.integers(-5, 5), st.sampled_from(EDGES))
TEXTS = ["", "a", "b", "é", "\U0001d538", "ab", "NaN", "1", None]
WORDS = st.sampled_from(TEXTS)


@dataclass(frozen=True)
class Probe:
    """One item of a trace."""

    run: str
    time: int
    origin: str
    values: dict[str, Any]


def probes(least: int = 0, most: int = 40) -> st.SearchStrategy[list[Probe]]:
    """A trace, short or long: times go back and stand still, values are missing, some items are not measured."""
    seeds = st.integers(0, 2**32)
    short = st.lists(seeds.map(_probe), min_size=least, max_size=most)
    long = st.builds(lambda first, size: [_probe(first + i) for i in range(size)], seeds, st.integers(least, most))
    return st.one_of(short, long, long)


def _probe(seed: int) -> Probe:
    """Return an item that is made from one number: drawing each value by itself leaves room for few items."""
    chance = random.Random(seed)
    some = _Some(chance)
    return Probe(
        run=chance.choice(["one", "one", "two"]),
        time=START + chance.choice([0, 1, 2, 3, 5, 8, 13]) * SECOND,
        origin=chance.choice(["measured"] * 6 + ["simulated", "projected"]),
        values={
            "x": some.number(),
            "y": some.number(),
            "n": some.whole(),
            "s": chance.choice(TEXTS),
            "b": chance.choice([True, False, None]),
            "layer": chance.choice(["fc1", "fc2", None]),
            "xs": some.list_of(some.number),
            "ns": some.list_of(some.whole),
            "ss": some.list_of(lambda: chance.choice(TEXTS)),
            "any": some.list_of(
                lambda: chance.choice([some.number(), some.whole(), chance.choice(TEXTS), True, False])
            ),
        },
    )


@dataclass(frozen=True)
class _Some:
    """Values of each kind, some of them missing or odd."""

    chance: random.Random

    def number(self) -> float | None:
        odd = [math.nan, math.inf, -math.inf, 0.0, -0.0, None]
        return self.chance.choice(odd) if self.chance.random() < 0.3 else self.chance.randint(-64, 64) / 8

    def whole(self) -> int | None:
        return self.chance.choice([*EDGES, None]) if self.chance.random() < 0.3 else self.chance.randint(-5, 5)

    def list_of(self, item: Callable[[], Any]) -> list[Any] | None:
        return None if self.chance.random() < 0.2 else [item() for _ in range(self.chance.randint(0, 4))]


def field_of(name: str) -> Expr:
    return Field(Name("t"), name)


@st.composite
def windows(draw: st.DrawFn) -> Window | None:
    per = tuple(draw(st.sampled_from([(), (), ("layer",), ("s",), ("layer", "b"), ("x",), ("n",)])))
    kind = draw(st.sampled_from(["last", "duration", "all"]))
    if kind == "last":
        return Window(last=draw(st.integers(1, 7)), per=per)
    if kind == "duration":
        return Window(duration_ns=draw(st.sampled_from([1, 2, 3, 10])) * SECOND, per=per)
    return Window(per=per) if draw(st.booleans()) else None


@st.composite
def plain_numbers(draw: st.DrawFn, depth: int = 2) -> Expr:
    """A number made of fields and constants, without aggregates."""
    if depth == 0 or draw(st.booleans()):
        return draw(
            st.one_of(
                st.sampled_from(["x", "y", "n"]).map(field_of),
                EXACT.map(Literal),
                st.integers(-3, 3).map(Literal),
                st.sampled_from([None, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1]).map(Literal),
            )
        )
    below = plain_numbers(depth - 1)
    return draw(
        st.one_of(
            st.builds(Binary, st.sampled_from(["+", "-", "*"]), below, below),
            st.builds(Binary, st.sampled_from(["/", "%"]), below, below),
            st.builds(Unary, st.just("-"), below),
            st.builds(lambda a: Call("abs", (a,)), below),
            st.builds(lambda name, a, b: Call(name, (a, b)), st.sampled_from(["min", "max"]), below, below),
            st.builds(lambda a, b, c: Call("clamp", (a, b, c)), below, below, below),
            st.builds(lambda name, a: Call(name, (a,)), st.sampled_from(["floor", "ceil", "round"]), below),
            st.sampled_from(["s", *LISTS]).map(lambda name: Call("len", (field_of(name),))),
        )
    )


@st.composite
def thresholds(draw: st.DrawFn) -> Expr:
    """A comparison of an aggregate or of a function with rounding, with a number that it never comes near."""
    inner = draw(st.sampled_from(["x", "y"]).map(field_of))
    if draw(st.integers(0, 3)) == 0:
        value: Expr = Call(draw(st.sampled_from(["sqrt", "log2", "log", "exp"])), (inner,))
    else:
        name = draw(st.sampled_from(["avg", "std", "slope", "p50", "p90", "p95", "p99", "avg"]))
        value = Call(name, (draw(plain_sums()),), draw(windows()))
    return Binary(draw(st.sampled_from(["<", "<=", ">", ">="])), value, Literal(draw(GENERIC)))


@st.composite
def plain_sums(draw: st.DrawFn) -> Expr:
    """A number on one item whose sums are exact."""
    one = draw(st.sampled_from(["x", "y"]).map(field_of))
    other = draw(st.one_of(st.sampled_from(["x", "y"]).map(field_of), EXACT.map(Literal)))
    return draw(st.sampled_from([one, one, Binary("+", one, other), Binary("*", one, other), Unary("-", one)]))


@st.composite
def aggregates(draw: st.DrawFn) -> Expr:
    """An aggregate that has no rounding on exact values."""
    window = draw(windows())
    name = draw(st.sampled_from(["count", "sum", "min", "max", "first", "last", "delta"]))
    if name == "count":
        arg = draw(st.one_of(st.none(), plain_sums(), conditions(0), st.sampled_from(["s", "xs", "any"]).map(field_of)))
        return Call("count", () if arg is None else (arg,), window)
    if name in ("first", "last") and draw(st.booleans()):
        return Call("len", (Call(name, (field_of(draw(st.sampled_from(["s", *LISTS]))),), window),))
    if name in ("first", "last"):
        return Call(name, (draw(st.one_of(plain_sums(), st.just(field_of("n")))),), window)
    return Call(name, (draw(plain_sums()),), window)


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2, *, windowed: bool = False) -> Expr:
    """An expression that is true, false or unknown."""
    if depth > 0 and draw(st.integers(0, 2)):
        below = conditions(depth - 1, windowed=windowed)
        return draw(
            st.one_of(
                st.builds(Binary, st.sampled_from(["and", "or"]), below, below),
                st.builds(Unary, st.just("not"), below),
                st.builds(Binary, st.sampled_from(["==", "!="]), below, below),
            )
        )
    compare = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    numbers_here = st.one_of(plain_numbers(), aggregates()) if windowed else plain_numbers()
    choices: list[st.SearchStrategy[Expr]] = [
        st.builds(Binary, compare, numbers_here, numbers_here),
        st.builds(Binary, compare, st.just(field_of("s")), st.sampled_from(["", "a", "b", "zz", "\uffff"]).map(Literal)),
        st.builds(Binary, compare, st.just(field_of("s")), st.just(field_of("layer"))),
        st.just(Binary("==", Binary("+", field_of("s"), Literal("b")), Literal("ab"))),
        st.just(field_of("b")),
        st.builds(lambda name: Call("is_known", (field_of(name),)), st.sampled_from(list(FIELDS))),
        st.builds(
            lambda op, name, some: Binary(op, field_of(name), ListExpr(tuple(map(Literal, some)))),
            st.sampled_from(["in", "not in"]), st.sampled_from(["x", "n"]),
            st.lists(st.one_of(EXACT, WHOLE, st.sampled_from([2**63, None])), max_size=3),
        ),
        st.builds(
            lambda some: Binary("in", field_of("s"), ListExpr(tuple(map(Literal, some)))),
            st.lists(st.sampled_from(["a", "b", None]), max_size=3),
        ),
        st.builds(
            lambda op, value, name: Binary(op, value, field_of(name)),
            st.sampled_from(["in", "not in"]),
            st.one_of(
                st.sampled_from(["x", "n", "s", "b"]).map(field_of), plain_numbers(1),
                st.one_of(EXACT, WHOLE, WORDS, st.booleans()).map(Literal),
            ),
            st.sampled_from(list(LISTS)),
        ),
    ]  # fmt: skip
    if windowed:
        texts_of = st.builds(
            lambda name, w: Call(name, (field_of("s"),), w), st.sampled_from(["first", "last"]), windows()
        )
        flags_of = st.builds(
            lambda name, w: Call(name, (field_of("b"),), w), st.sampled_from(["first", "last"]), windows()
        )
        choices += [
            thresholds(),
            thresholds(),
            st.builds(Binary, compare, texts_of, st.sampled_from(["a", "b"]).map(Literal)),
            flags_of,
        ]
    return draw(st.one_of(choices))


@st.composite
def facts(draw: st.DrawFn, most: int = 4) -> list[Fact]:
    """Some facts; later ones may call earlier ones."""
    out: list[Fact] = []
    for number in range(draw(st.integers(1, most))):
        body = draw(conditions(windowed=True))
        if out and draw(st.integers(0, 2)) == 0:
            called = Call(draw(st.sampled_from([one.name for one in out])), (Name("t"),))
            body = Binary(draw(st.sampled_from(["and", "or"])), called, body)
        out.append(Fact(f"f{number}", "t", CASE, body))
    return out


def scope_of(some: Sequence[Fact], items: Sequence[Item] = ()) -> Scope:
    return Scope(facts={one.name: one for one in some}, items=items, case_names={CASE: CASE})


def reference(some: Sequence[Fact], trace: Sequence[Probe]) -> list[list[bool | None]]:
    """Return, for each fact, what it is for each measured item."""
    items = [Item(CASE, probe.values, probe.run, probe.time, probe.origin) for probe in trace]
    scope = scope_of(some, items)
    return [[evaluate_fact(fact, item, scope) for item in items if item.origin == "measured"] for fact in some]


def items_of(trace: Sequence[Probe], first: int = 0) -> Items:
    """Return a trace as columns; item i stands at sequence first + i // 3."""
    places = np.arange(first, first + len(trace))
    return Items(
        seq=places // 3 + 1,
        idx=places % 3,
        part=np.zeros(len(trace), np.int64),
        run=texts([probe.run for probe in trace]),
        time=np.array([probe.time for probe in trace], np.int64),
        fields={name: MAKE[kind]([_plain(probe.values[name]) for probe in trace]) for name, kind in KINDS.items()},
        measured=np.array([probe.origin == "measured" for probe in trace], np.bool_),
    )


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def cut(trace: Sequence[Probe], cuts: Sequence[int]) -> list[tuple[int, Sequence[Probe]]]:
    """Return the pieces of a trace, each with the number of its first item; some may be empty."""
    edges = [0, *sorted(min(at, len(trace)) for at in cuts), len(trace)]
    return [(a, trace[a:b]) for a, b in itertools.pairwise(edges)]
