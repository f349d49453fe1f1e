"""Guards: what recordings had in common becomes what is asked for again."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.consumers.crystallizer import derive_guards, missed
from morphogen.consumers.crystallizer.guards import malformed, name_of
from morphogen.consumers.crystallizer.preconditions import FORMS, broken, domain, relations
from morphogen.kernels.sandbox import Capabilities, Declared, Refused
from morphogen.schemas.crystals import Guard, Parameter

from .courses import family

ENVIRONMENT = {"python": "3.11"}


def nothing(act: Callable[..., Any], **params: Any) -> None:
    """Do nothing, whatever the parameters."""


def guards_of(many: list[dict[str, Any]]) -> list[Guard]:
    params = [Parameter(name=name, type="Any") for name in sorted({name for one in many for name in one})]
    return derive_guards(params, family(nothing, many), ())


def miss(guards: list[Guard], **params: Any) -> str | None:
    found = missed(guards, params, ENVIRONMENT)
    return None if found is None else name_of(found[0])


@pytest.mark.parametrize(
    ("values", "good", "bad"),
    [
        (["EUR"] * 5, ["EUR"], ["USD", "eur", None]),
        (["a", "b"] * 6, ["a", "b"], ["c"]),
        ([f"run-{at}" for at in range(12)], ["run-99"], ["", "two\nlines", "Run-1", "run 1"]),
        ([f"d/{at}.csv" for at in range(12)], ["x.csv"], ["x.json", "csv"]),
        ([f"2024-01-{at:02d}" for at in range(10, 22)], ["2025-12-31"], ["tomorrow", "2025-12-31 10:00"]),
        (list(range(3, 23)), [3, 22, 24, 2], [0, -1, 1, 99]),
        ([at / 10 for at in range(-5, 15)], [0.0, -0.54, 1.5], [-0.6, 99.0, float("nan")]),
        ([True] * 8, [True], [False]),
        ([3] * 9, [3], [4, 3.0, True]),
        ([[at] for at in range(9)], [[99]], [[]]),
    ],
)
def test_a_parameter_keeps_to_what_was_recorded_of_it(values: list[Any], good: list[Any], bad: list[Any]) -> None:
    guard = domain("p", values)
    assert guard is not None
    assert [value for value in good if broken(guard.expected, value, {"p": value}) is not None] == []
    assert [value for value in bad if broken(guard.expected, value, {"p": value}) is None] == []


LARGE = st.integers(-(2**63), 2**64 - 1)
numbers = st.one_of(
    st.lists(st.one_of(st.integers(-1000, 1000), st.floats(-1e6, 1e6)), min_size=1, max_size=12),
    st.lists(LARGE, min_size=1, max_size=12),
    st.integers(2**60, 2**63).flatmap(
        lambda low: st.lists(st.integers(low, low + 99), min_size=1, max_size=12)  # ids of a kind
    ),
    st.lists(st.one_of(LARGE, st.floats(allow_nan=False)), min_size=1, max_size=12),
)
texts = st.lists(st.text(max_size=12), min_size=1, max_size=12)


@settings(max_examples=150)
@given(
    st.one_of(
        numbers,
        texts,
        st.lists(st.booleans(), min_size=1),
        st.lists(st.lists(st.integers(-9, 9)), min_size=1, max_size=6),
    )
)
def test_what_was_recorded_always_passes(values: list[Any]) -> None:
    guards = guards_of([{"p": value} for value in values])
    assert [malformed(one) for one in guards] == [None] * len(guards)
    msgspec.msgpack.encode(guards)
    for value in values:
        assert miss(guards, p=value) is None


@given(st.text(alphabet="a \t\n\r\x0b\x85\u2028", max_size=12))
def test_a_line_is_one_line_that_is_not_blank(text: str) -> None:
    one = bool(text.strip()) and "\n" not in text and "\r" not in text
    assert (FORMS["line"].match(text) is not None) == one


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_long_text_is_held_against_a_form_at_once(form: str) -> None:
    began = time.monotonic()
    for text in ("a" * 100_000, " " * 100_000, "1" * 100_000, "2026-01-01T00:00" + "a " * 50_000, "{a " * 30_000):
        FORMS[form].match(f"{text}\n")
    assert time.monotonic() - began < 5


@given(st.lists(st.tuples(LARGE, LARGE), min_size=2, max_size=5))
def test_numbers_of_any_size_that_went_together_can_be_told(pairs: list[tuple[int, int]]) -> None:
    guards = guards_of(
        [{"a": low, "b": high} for low, high in pairs] + [{"a": -1, "b": 2**63}, {"a": -2, "b": 2**63 - 1}]
    )
    msgspec.msgpack.encode(guards)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5), st.text("ab", max_size=3)), min_size=1, max_size=8))
def test_relations_hold_of_what_they_were_taken_from(pairs: list[tuple[int, str]]) -> None:
    many = [{"a": a, "b": a + 3, "c": text, "d": f"in/{text}.txt"} for a, text in pairs]
    guards = guards_of(many)
    assert all(miss(guards, **one) is None for one in many)


def test_parameters_that_went_together_must_go_together_again() -> None:
    many = [{"a": at, "b": at, "first": at + 10, "stem": f"s{at}x", "path": f"out/s{at}x.csv"} for at in range(12)]
    found = relations({name: [one[name] for one in many] for name in many[0]})
    assert {(one.subject, tuple(sorted(one.expected))) for one in found} >= {
        ("a", ("equals", "of")), ("a", ("apart", "of")), ("path", ("after", "before", "of")),
    }  # fmt: skip
    guards = guards_of(many)
    good = {"a": 5, "b": 5, "first": 15, "stem": "s77x", "path": "out/s77x.csv"}
    assert miss(guards, **good) is None
    assert miss(guards, **{**good, "b": 6}) is not None
    assert miss(guards, **{**good, "path": "out/other.csv"}) == "precondition path"


def test_types_and_names_of_parameters_are_asked_for() -> None:
    guards = guards_of([{"n": at, "name": f"x{at}"} for at in range(9)])
    assert miss(guards, n=4, name="y") is None
    assert miss(guards, n="4", name="y") == "type n"
    assert miss(guards, n=True, name="y") == "type n"
    assert miss(guards, n=4) == "type name"
    assert miss(guards, n=4, name="y", more=1) == "type more"


@pytest.mark.parametrize("value", [1 << 70, {1, 2}, object(), {(1, 2): 3}, "\ud800"])
def test_a_value_that_no_event_can_hold_is_missed_and_nothing_is_raised(value: object) -> None:
    assert miss(guards_of([{"n": [at]} for at in range(9)]), n=value) == "type n"


def test_an_optional_parameter_may_be_left_out() -> None:
    guards = guards_of([{"n": at} if at % 2 else {"n": at, "deep": bool(at % 4)} for at in range(12)])
    assert miss(guards, n=3) is None
    assert miss(guards, n=3, deep=True) is None
    assert miss(guards, n=3, deep="yes") == "type deep"


def test_the_environment_is_asked_for_where_it_was_the_same() -> None:
    traces = family(nothing, [{"n": at} for at in range(4)], environment={"python": "3.11", "host": "a"})
    more = family(nothing, [{"n": at} for at in range(4)], environment={"python": "3.11", "host": "b"})
    guards = derive_guards([Parameter(name="n", type="int")], [*traces, *more], ())
    assert missed(guards, {"n": 1}, {"python": "3.11", "host": "c"}) is None
    found = missed(guards, {"n": 1}, {"host": "a"})
    assert found is not None
    assert name_of(found[0]) == "environment python"


@pytest.mark.parametrize(
    "guard",
    [
        Guard(kind="nonsense", subject="a"),
        Guard(kind="type", subject="a", expected="os.system"),
        Guard(kind="precondition", subject="a", expected=None),
        Guard(kind="precondition", subject="a", expected={"one_of": 3}),
        Guard(kind="precondition", subject="a", expected={"new": 3}),
        Guard(kind="environment", subject="a", expected=[]),
        Guard(kind="world", subject="a", expected={}),
        Guard(kind="world", subject="a", expected={"site": "*", "path": ["x"]}),
        Guard(kind="world", subject="a", expected={"site": "*", "result_sha256": "x", "ask": "{"}),
    ],
)
def test_a_guard_that_cannot_be_checked_is_known_as_such(guard: Guard) -> None:
    assert malformed(guard) is not None


def test_a_condition_that_is_not_known_does_not_hold() -> None:
    assert broken({"newer_than_us": 1}, 5, {}) is not None
    assert miss([Guard(kind="type", subject="a", expected="int"), Guard(kind="new", subject="a")], a=1) == "new a"


def test_a_declared_function_that_takes_values_by_place_is_called_by_place() -> None:
    from morphogen.consumers.crystallizer import Watch

    def joined(first: str, /, *rest: str, end: str = ".") -> str:
        return first + "".join(rest) + end

    watch = Watch(Capabilities(tools={"join": Declared(joined, "pure")}), ["join"])
    function = watch.capabilities.functions["join"].function
    assert function("a", "b", "c", end="!") == joined("a", "b", "c", end="!")
    assert function("a") == "a."
    assert [use.ok for use in watch.uses] == [True, True]


def test_a_declared_function_that_tells_no_signature_takes_names_as_well() -> None:
    from morphogen.consumers.crystallizer import Watch

    watch = Watch(
        Capabilities(tools={"most": Declared(max, "pure"), "whole": Declared(int, "pure")}), ["most", "whole"]
    )
    most, whole = (watch.capabilities.functions[name].function for name in ("most", "whole"))

    assert most(*range(12)) == 11  # the twelfth stands behind the second, whatever their numbers' spelling
    assert most([], default=7) == 7
    assert whole("ff", base=16) == 255
    assert [use.args for use in watch.uses[1:]] == [{"0": [], "default": 7}, {"0": "ff", "base": 16}]


@pytest.mark.parametrize(
    "named", [{"path": "a"}, {"path": "a", "kinds": ("x", "y")}, {"kinds": ["x", "y"], "path": "a"}]
)
def test_a_call_is_recorded_alike_however_its_arguments_are_given(named: dict[str, Any]) -> None:
    from morphogen.consumers.crystallizer import Watch

    def found(path: str, kinds: Sequence[str] = ("x", "y"), *, most: int = 3) -> int:
        return most

    watch = Watch(Capabilities(tools={"find": Declared(found, "read")}), ["find"])
    function = watch.capabilities.functions["find"].function
    function(**named)
    function("a", ["x", "y"], most=3)
    assert watch.uses[0].args == watch.uses[1].args == {"path": "a", "kinds": ["x", "y"], "most": 3}
    with pytest.raises(Refused, match="missing"):
        function(kinds=[])
    with pytest.raises(Refused, match="unexpected"):
        function(path="a", other=1)
