"""What the checker says of conditions is so: nothing that can hold is called impossible, what follows does follow."""

from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.schemas.knowledge.aggregates import Item
from morphogen.schemas.knowledge.check.reach import Reach
from morphogen.schemas.knowledge.evaluate import Scope, evaluate
from morphogen.schemas.knowledge.index import index_of
from morphogen.schemas.knowledge.parse import parse
from morphogen.schemas.knowledge.tree import Binary, Expr, Field, ListExpr, Literal, Name, Unary

CASE = 'case C { x: float, n: int, k: "a" | "b" | "c", ok: boolean, y: float }'
INDEX = index_of(parse(f"system S {{ trace_schema {{ variant V {{ {CASE} }} }} }}").module)
ENTRY = INDEX.find("case", "C")
REACH = Reach(INDEX)

constants = st.sampled_from((-1, 0, 1, 2, 2.5, 3))
compared = st.sampled_from(("==", "!=", "<", "<=", ">", ">="))


def t(name: str) -> Expr:
    return Field(Name("t"), name)


atoms = st.one_of(
    st.builds(lambda op, name, value: Binary(op, t(name), Literal(value)), compared, st.sampled_from("xny"), constants),
    st.builds(lambda op, name, value: Binary(op, Literal(value), t(name)), compared, st.sampled_from("xny"), constants),
    st.builds(lambda op: Binary(op, t("x"), t("y")), compared),
    st.builds(lambda op: Binary(op, t("y"), t("x")), compared),
    st.builds(
        lambda op, value: Binary(op, t("k"), Literal(value)), st.sampled_from(("==", "!=")), st.sampled_from("abc")
    ),
    st.builds(
        lambda op, values: Binary(op, t("n"), ListExpr(tuple(map(Literal, values)))),
        st.sampled_from(("in", "not in")),
        st.lists(constants, min_size=1, max_size=3),
    ),
    st.just(t("ok")),
    st.sampled_from((Literal(True), Literal(False))),
)
conditions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds(lambda op, left, right: Binary(op, left, right), st.sampled_from(("and", "or")), inner, inner),
        st.builds(lambda one: Unary("not", one), inner),
    ),
    max_leaves=6,
)
numbers = st.none() | st.sampled_from((-2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.25, 2.5, 2.75, 3.0, 4.0))
items = st.builds(
    lambda x, n, k, ok, y: Item("S.C", {"x": x, "n": n, "k": k, "ok": ok, "y": y}),
    numbers,
    st.none() | st.integers(-2, 5),
    st.none() | st.sampled_from("abc"),
    st.none() | st.booleans(),
    numbers,
)


def holds(condition: Expr, item: Item) -> bool:
    return evaluate(condition, Scope(names={"t": item}, item=item)) is True


@settings(max_examples=250)
@given(conditions, st.lists(items, min_size=1, max_size=8))
def test_what_can_hold_is_never_called_impossible(condition: Expr, tried: list[Item]) -> None:
    assert ENTRY is not None

    why = REACH.impossible(REACH.clauses((condition,), "S", ("t", ENTRY)))

    assert why is None or not any(holds(condition, one) for one in tried)


@settings(max_examples=250)
@given(conditions, conditions, st.lists(items, min_size=1, max_size=8))
def test_what_is_said_to_follow_follows(one: Expr, other: Expr, tried: list[Item]) -> None:
    assert ENTRY is not None
    first, second = (REACH.clauses((each,), "S", ("t", ENTRY)) for each in (one, other))

    if REACH.implies(first, second):
        assert all(holds(other, item) for item in tried if holds(one, item))
