"""Answers of the world that were alike in every recording: found, and missed when they change."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.consumers.crystallizer import Use, world


def course(path: str, result: Any, **more: Any) -> tuple[dict[str, Any], list[Use]]:
    return {"path": path}, [Use(name="read", args={"path": path, **more}, effect="read", result=result)]


def guards_of(results: list[Any]) -> Any:
    return world.derive([course(f"p{at}.txt", result) for at, result in enumerate(results)], frozenset({"read"}))


def broke(guards: Any, result: Any) -> bool:
    return world.broken(guards, "read", {"path": "new.txt"}, result, {"path": "new.txt"}) is not None


@pytest.mark.parametrize(
    ("recorded", "good", "bad"),
    [
        ([True] * 5, [True], [False, 1, None]),
        (["rate = 0.2"] * 5, ["rate = 0.2"], ["rate = 0.3"]),
        (
            [{"unit": "ms", "value": at, "deep": {"kind": "a"}} for at in range(5)],
            [{"unit": "ms", "value": 99, "deep": {"kind": "a"}}],
            [{"unit": "s", "value": 1, "deep": {"kind": "a"}}, {"value": 1, "deep": {"kind": "a"}}, "text", None],
        ),
        (
            [f"name,price\nx,{at}\n" for at in range(5)],
            ["name,price\nx,9\nx,3\n"],
            ["price,name\n3,x\n", "name;price\nx;9\n", "", "name,price,more\nx,9,1\n", "name,price\ny,9\n"],
        ),
        (
            [json.dumps([{"id": at, "currency": "EUR"}]) for at in range(5)],
            [json.dumps([{"id": 77, "currency": "EUR"}])],
            [json.dumps([{"id": 77, "currency": "USD"}])],
        ),
        (
            [{"ms": 100 + at} for at in range(9)],
            [{"ms": 9111}, {"ms": 9}],
            [{"ms": 0.1}, {"ms": 100_000}, {"ms": "x"}, {"ms": -100}],
        ),
        ([[at] * (1 + at % 3) for at in range(9)], [[3], [9, 9]], [[], [-1], [999]]),
        ([f"line {at}\n" for at in range(9)], ["line 33\n"], [""]),
        ([f'{{"a": {at}, "s": 1}}\n{{"a": 2, "s": 1}}' for at in range(5)], ['{"a": 7, "s": 1}'], ['{"a": 7, "s": 2}']),
    ],
)
def test_what_never_varied_must_not_vary(recorded: list[Any], good: list[Any], bad: list[Any]) -> None:
    guards = guards_of(recorded)
    assert [one for one in good if broke(guards, one)] == []
    assert [one for one in bad if not broke(guards, one)] == []


def test_what_varied_may_vary() -> None:
    guards = guards_of([{"unit": "ms" if at % 2 else "s", "value": at} for at in range(6)])
    assert not broke(guards, {"unit": "h", "value": 7})


def test_writes_without_an_answer_and_functions_that_the_tool_does_not_use_say_nothing_of_the_world() -> None:
    uses = [Use(name="read", args={"a": 1}, effect="read", result=3), Use(name="put", args={"a": 1}, effect="write")]
    assert world.derive([({}, uses)] * 5, frozenset({"put"})) == []


def test_a_use_that_is_not_in_every_recording_says_nothing() -> None:
    with_it = course("p", "same")
    without: tuple[dict[str, Any], list[Use]] = ({"path": "q"}, [])
    assert world.derive([with_it, with_it, without], frozenset({"read"})) == []


def test_a_site_is_named_by_parameters_and_not_by_their_values() -> None:
    where = world.site({"path": "runs/alpha/log.txt", "n": 3, "all": True}, {"run": "alpha", "n": 3, "all": True})
    assert json.loads(where) == {"path": "runs/{run}/log.txt", "n": "{n}", "all": True}


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text("ab,{}\n", max_size=8)),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inside, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150)
@given(st.lists(values, min_size=1, max_size=6))
def test_what_was_recorded_never_misses(results: list[Any]) -> None:
    guards = guards_of(results)
    assert [world.malformed(one.expected) for one in guards] == [None] * len(guards)
    for at, result in enumerate(results):
        params = {"path": f"p{at}.txt"}
        assert world.broken(guards, "read", params, result, params) is None


def test_a_read_that_is_left_out_is_asked_again_with_the_parameters_of_the_call() -> None:
    used = [course(f"r{at}", "v1", kind="x") for at in range(4)]
    guard = world.sentinel("read", [(params, uses[0]) for params, uses in used])
    assert guard is not None
    assert world.asked_of(guard, {"path": "mine"}) == {"path": "mine", "kind": "x"}
    differing = [*used, course("r9", "v2", kind="x")]
    assert world.sentinel("read", [(params, uses[0]) for params, uses in differing]) is None


_KEYS = st.sampled_from(["a", "b", "[]"])
_SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60)
@given(_SHAPES, st.lists(_KEYS, max_size=6).map(tuple))
def test_what_stands_at_a_path_is_what_a_walk_over_all_finds_there(shape: Any, path: tuple[str, ...]) -> None:
    walked = [value for at, value in world._scalars(shape) if at == path]

    assert sorted(map(repr, world._at(shape, path))) == sorted(map(repr, walked))


HOSTILE = {
    "half a character": '{"unit": "\\ud83d", "n": %d}',
    "a key of half a character": '{"\\ud83d": %d}',
    "a number of 128 bits": '{"id": 340282366920938463463374607431768211455, "n": %d}',
    "numbers without an end": '{"id": 1e999, "n": %d}',
    "too deep": "[" * 100_000 + "%d",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_whatever_a_text_spells_is_held_against_guards_and_can_be_recorded(text: str) -> None:
    guards = guards_of([text % at for at in range(6)])
    assert not broke(guards, text % 3)
    unit = guards_of([json.dumps({"unit": "ms", "n": at}) for at in range(6)])
    assert broke(unit, text % 3)


def test_what_cannot_be_looked_at_is_not_what_was_recorded() -> None:
    class Odd:
        def __bool__(self) -> bool:
            raise ValueError("the truth of it is ambiguous")

    guards = guards_of([[at] for at in range(6)])
    assert broke(guards, Odd())
