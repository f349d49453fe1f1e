"""Following a recorded course: what the past says is done, what it leaves open is refused."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from morphogen.consumers.dispatch.explain import CannotFollow, Hole, Known, explain, same
from morphogen.consumers.dispatch.follow import Followed, follow, would_agree
from morphogen.consumers.dispatch.plan import check, plan_of
from morphogen.consumers.dispatch.protocol import Act
from morphogen.consumers.executions import Trace

from .world import trace

GOAL = "copy {src} to {dst}"


def copied(src: str, dst: str, text: str, **more: Any) -> Trace:
    steps = [("read", {"path": src}, text), ("write", {"path": dst, "text": text}, None, "write")]
    return trace("copy it", {"src": src, "dst": dst}, steps, dst, **more)


def answering(world: Mapping[str, Any]) -> Callable[[str, dict[str, Any]], Any]:
    def call(name: str, args: dict[str, Any]) -> Any:
        return world[args["path"]] if name == "read" else None

    return call


def told(
    plan_traces: Sequence[Trace], params: Mapping[str, Any], world: Mapping[str, Any]
) -> tuple[Followed, list[Any]]:
    calls: list[Any] = []
    answer = answering(world)

    def call(name: str, args: dict[str, Any]) -> Any:
        calls.append((name, args))
        return answer(name, args)

    return follow(plan_of(plan_traces), params, call), calls


def test_one_course_is_gone_with_other_parameters_and_what_flowed_flows_again() -> None:
    done, calls = told([copied("a.csv", "b.csv", "one,two")], {"src": "c.csv", "dst": "d.csv"}, {"c.csv": "three"})
    assert done == Followed(True, "d.csv", steps=2)
    assert calls == [("read", {"path": "c.csv"}), ("write", {"path": "d.csv", "text": "three"})]


def test_what_a_model_worked_out_is_refused_before_anything_is_done() -> None:
    summed = trace("sum", {"path": "a.csv"}, [("read", {"path": "a.csv"}, "1\n2\n")], 3)
    other = trace("sum", {"path": "b.csv"}, [("read", {"path": "b.csv"}, "5\n6\n")], 11, name="e1", seq=2)
    done, calls = told([summed, other], {"path": "c.csv"}, {"c.csv": "9\n"})
    assert (done.ok, calls) == (False, [])
    assert done.refused is not None
    assert "a model worked it out" in done.refused
    same_again, _ = told([summed, other], {"path": "b.csv"}, {"b.csv": "5\n6\n"})
    assert same_again.output == 11  # who knew the same answered this
    changed, _ = told([summed, other], {"path": "b.csv"}, {"b.csv": "5\n7\n"})
    assert not changed.ok


def test_a_stale_number_is_never_written_again() -> None:
    def reported(path: str, count: int, name: str) -> Trace:
        steps = [
            ("read", {"path": path}, f"log of {path}"),
            ("write", {"path": "out", "text": str(count)}, None, "write"),
        ]
        return trace("count", {"path": path}, steps, None, name=name)

    for many in (1, 2):
        traces = [reported(f"log{at}", 7, f"e{at}") for at in range(many)]
        done, calls = told(traces, {"path": "new.log"}, {"new.log": "others"})
        assert not done.ok
        assert [name for name, _ in calls] in ([], ["read"])
        assert "needed to believe" in (done.refused or "")


def test_a_fixed_text_is_written_once_three_courses_agree() -> None:
    def marked(path: str, name: str) -> Trace:
        steps = [("append", {"path": path, "text": "# checked"}, None, "write")]
        return trace("mark", {"path": path}, steps, None, name=name)

    traces = [marked(f"f{at}.txt", f"e{at}") for at in range(3)]
    done, calls = told(traces, {"path": "g.txt"}, {})
    assert done.ok
    assert calls == [("append", {"path": "g.txt", "text": "# checked"})]


def test_a_parameter_that_never_varied_is_not_taken_for_what_it_merely_equals() -> None:
    def converted(amount: int, name: str) -> Trace:
        steps = [("rate", {"currency": "EUR", "amount": amount}, amount * 2.0, "pure")]
        return trace("convert", {"amount": amount, "currency": "EUR"}, steps, amount * 2.0, name=name)

    traces = [converted(amount, f"e{amount}") for amount in (100, 200, 300)]
    done, calls = told(traces, {"amount": 400, "currency": "USD"}, {})
    assert (done.ok, calls) == (False, [])
    assert "never varied" in (done.refused or "")
    plan = plan_of(traces)
    check(plan, {"amount": 400, "currency": "EUR"})


def test_two_sources_that_were_equal_and_now_differ_are_refused() -> None:
    traces = [copied(name, name, text, name=name) for name, text in (("a.csv", "one"), ("b.csv", "two"))]
    done, calls = told(traces, {"src": "c.csv", "dst": "d.csv"}, {"c.csv": "x", "d.csv": "y"})
    assert (done.ok, calls) == (False, [])
    assert "now differ" in (done.refused or "")


def test_texts_are_rebuilt_around_what_they_held() -> None:
    def made(run: str, epoch: int, name: str) -> Trace:
        steps = [("read", {"path": f"runs/{run}/{epoch}.pt"}, f"weights of {run}")]
        output = {"held": f"weights of {run}", "file": f"{run}@{epoch}"}
        return trace("load", {"run": run, "epoch": epoch}, steps, output, name=name)

    done, calls = told(
        [made("alpha", 3, "e0"), made("beta", 12, "e1")], {"run": "gamma", "epoch": 7}, {"runs/gamma/7.pt": "w"}
    )
    assert done.output == {"held": "w", "file": "gamma@7"}
    assert calls == [("read", {"path": "runs/gamma/7.pt"})]


def test_a_longer_list_than_was_recorded_is_refused() -> None:
    def read_all(names: list[str], name: str) -> Trace:
        return trace(
            "read",
            {"names": names},
            [("read", {"path": one}, f"in {one}") for one in names],
            [f"in {one}" for one in names],
            name=name,
        )

    traces = [read_all([f"a{at}", f"b{at}"], f"e{at}") for at in range(3)]
    world = {one: f"in {one}" for one in ("x", "y", "z")}
    assert told(traces, {"names": ["x", "y"]}, world)[0].output == ["in x", "in y"]
    done, calls = told(traces, {"names": ["x", "y", "z"]}, world)
    assert (done.ok, calls) == (False, [])
    assert "3 items" in (done.refused or "")


def test_courses_that_knew_the_same_and_did_otherwise_show_hidden_state() -> None:
    one = trace("say", {"who": "Ada"}, [("read", {"path": "x"}, "hello")], "hello Ada")
    two = trace("say", {"who": "Ada"}, [("read", {"path": "x"}, "hello")], "good night Ada", name="e1", seq=2)
    done, _ = told([one, two], {"who": "Ada"}, {"x": "hello"})
    assert "went different ways" in (done.refused or "")


def test_a_reply_is_played_back_only_to_the_same_question() -> None:
    def asked(path: str, text: str, reply: str, name: str) -> Trace:
        steps = [("read", {"path": path}, text), ("llm.query", {"prompt": f"Shorten: {text}"}, reply, "llm")]
        return trace("shorten", {"path": path}, steps, reply, name=name)

    traces = [asked("a", "a long text", "short", "e0"), asked("b", "another text", "brief", "e1")]
    done, _ = told(traces, {"path": "c"}, {"c": "another text"})
    assert done.output == "brief"
    other, _ = told(traces, {"path": "c"}, {"c": "a text that nobody has seen"})
    assert not other.ok
    assert other.refused is not None


def test_a_pure_function_that_answers_otherwise_is_a_failure() -> None:
    seen = trace("double", {"n": 21}, [("twice", {"n": 21}, 42, "pure")], 42)
    done = follow(plan_of([seen]), {"n": 21}, lambda name, args: 43)
    assert "answered otherwise" in (done.error or "")


def test_a_result_of_another_type_is_a_failure() -> None:
    done = follow(
        plan_of([copied("a.csv", "b.csv", "x" * 20)]), {"src": "c.csv", "dst": "d.csv"}, lambda name, args: None
    )
    assert "gave a NoneType" in (done.error or "")


def test_detours_and_retries_are_left_out() -> None:
    steps = [
        ("read", {"path": "nowhere"}, None, "read", "failed"),
        ("read", {"path": "a.csv"}, "long enough"),
        ("read", {"path": "a.csv"}, "long enough"),
        ("write", {"path": "b.csv", "text": "long enough"}, None, "write"),
    ]
    untidy = trace("copy it", {"src": "a.csv", "dst": "b.csv"}, steps, "b.csv")
    done, calls = told([untidy], {"src": "c.csv", "dst": "d.csv"}, {"c.csv": "text of c"})
    assert done.ok
    assert len(calls) == 2


@pytest.mark.parametrize("outcome", ["failure", "cancelled", "timeout"])
def test_what_did_not_succeed_is_not_followed(outcome: str) -> None:
    with pytest.raises(CannotFollow, match="no recorded execution"):
        plan_of([copied("a.csv", "b.csv", "text", outcome=outcome)])


def test_parameters_of_other_names_or_types_are_refused() -> None:
    plan = plan_of([copied("a.csv", "b.csv", "text of a")])
    for params in ({"src": "c.csv"}, {"src": "c", "dst": "d", "more": 1}, {"src": 7, "dst": "d.csv"}):
        with pytest.raises(CannotFollow):
            check(plan, params)


def test_equality_is_that_of_values_that_cross() -> None:
    assert not same(1, True)
    assert not same(1, 1.0)
    assert same((1, 2), [1, 2])
    assert same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert same(object, object)  # what cannot cross is compared by what it says of itself


# A family of agents: each argument and the answer is put together from parameters and earlier results.

WORDS = st.from_regex(r"[a-z]{4,8}", fullmatch=True)
NAMES = ("alpha", "beta")
PIECE = st.sampled_from(["param:alpha", "param:beta", "result:0", "key:0"]) | WORDS
EXPRESSION = st.lists(PIECE, min_size=1, max_size=3)


def world(name: str, args: Mapping[str, Any]) -> Any:
    digest = hashlib.sha256(repr((name, sorted(args.items()))).encode()).hexdigest()
    return {"id": digest[:6], "text": digest[6:14]} if name == "look" else f"{digest[:9]}"


def put_together(expression: Sequence[str], params: Mapping[str, Any], results: Sequence[Any]) -> Any:
    values = []
    for piece in expression:
        kind, _, key = piece.partition(":")
        if kind == "param" and key:
            values.append(params[key])
        elif kind == "result" and results:
            values.append(results[0]["text"])
        elif kind == "key" and results:
            values.append(results[0]["id"])
        else:
            values.append(piece)
    return values[0] if len(values) == 1 else "/".join(values)


def gone(agent: Sequence[Sequence[str]], params: Mapping[str, Any]) -> tuple[list[tuple[Any, ...]], Any]:
    results: list[Any] = []
    steps: list[tuple[Any, ...]] = []
    for at, expression in enumerate(agent[:-1]):
        name = "look" if at == 0 else "write"
        args = {"what": put_together(expression, params, results)}
        results.append(world(name, args))
        steps.append((name, args, results[-1], "read" if at == 0 else "write"))
    return steps, put_together(agent[-1], params, results)


@given(
    agent=st.lists(EXPRESSION, min_size=2, max_size=4),
    many=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5),
    now=st.tuples(WORDS, WORDS),
)
@hypothesis_settings(max_examples=80)
def test_following_does_what_the_agent_would_do_or_refuses(
    agent: list[list[str]], many: list[tuple[str, str]], now: tuple[str, str]
) -> None:
    traces = []
    for at, values in enumerate(many):
        params = dict(zip(NAMES, values, strict=True))
        steps, output = gone(agent, params)
        traces.append(trace("do it", params, steps, output, name=f"e{at}", seq=at))
    params = dict(zip(NAMES, now, strict=True))
    steps, output = gone(agent, params)
    calls: list[Any] = []

    def call(name: str, args: dict[str, Any]) -> Any:
        calls.append((name, args))
        return world(name, args)

    plan = plan_of(traces)
    done = follow(plan, params, call)
    assert done.error is None
    assert calls == [(name, args) for name, args, *_ in steps][: len(calls)]
    if done.ok:
        assert len(calls) == len(steps)
        assert done.output == output
    acts = [Act(name=name, args=args, effect=effect, result=result) for name, args, result, effect in steps]
    paper = would_agree(plan, params, acts, output)
    assert paper.agreed is (True if done.ok else None)
    if done.ok:
        assert would_agree(plan, params, acts, "another answer").agreed is False


@given(values=st.lists(st.integers() | st.text(max_size=9) | st.none() | st.booleans(), min_size=1, max_size=4))
@hypothesis_settings(max_examples=60)
def test_an_explanation_gives_every_recorded_value_back(values: list[Any]) -> None:
    known = [Known({"p": value, "q": at}) for at, value in enumerate(values)]
    tree = explain(values, known)
    assert isinstance(tree, Hole)
    assert any(str(way) == "the parameter 'p'" for way in tree.ways)


def test_a_course_is_not_repeated_as_it_stands_in_another_environment() -> None:
    answered = replace(trace("say", {"n": 1}, [("read", {"path": "x"}, "a text")], 42), environment={"stage": "test"})
    plan = plan_of([answered])
    read = answering({"x": "a text"})
    assert follow(plan, {"n": 1}, read, {"stage": "test", "more": "1"}).output == 42
    assert follow(plan, {"n": 1}, read, {}).output == 42
    assert follow(plan, {"n": 1}, read, {"stage": "production"}).refused


def test_an_answer_that_rests_on_nothing_seen_is_repeated_once_two_agree() -> None:
    one, two = trace("what day", {}, [], "Friday"), trace("what day", {}, [], "Friday", name="e1", seq=2)
    assert "looked at nothing" in (told([one], {}, {})[0].refused or "")
    assert told([one, two], {}, {})[0].output == "Friday"


def test_a_course_of_another_shape_is_not_gone_on_with_after_the_world_has_changed() -> None:
    usual = [
        trace("t", {"a": f"p{at}"}, [("read", {"path": f"p{at}"}, f"text {at}"), ("read", {"path": "q"}, "q")], f"text {at}",
              name=f"e{at}", seq=at)
        for at in range(3)
    ]  # fmt: skip
    odd = trace(
        "t", {"a": "odd"}, [("peek", {"path": "odd"}, "seen"), ("read", {"path": "odd"}, "x")], "x", name="o", seq=9
    )
    plan = plan_of([*usual, odd])
    done = follow(plan, {"a": "odd"}, lambda name, args: {"peek": "changed"}.get(name, "y"))
    assert "do not begin like this" in (done.refused or "")


def test_a_look_that_only_some_courses_took_is_left_out() -> None:
    traces = []
    for at in range(6):
        steps: list[Any] = [
            ("read", {"path": f"src{at}.csv"}, f"text {at}"),
            ("write", {"path": f"dst{at}.csv", "text": f"text {at}"}, None, "write"),
        ]
        if at % 2:
            steps.insert(at % 3 % 2, ("read", {"path": "README.md"}, "read me"))
        traces.append(
            trace("copy it", {"src": f"src{at}.csv", "dst": f"dst{at}.csv"}, steps, None, name=f"e{at}", seq=at)
        )
    done, calls = told(traces, {"src": "new.csv", "dst": "to.csv"}, {"new.csv": "new text"})
    assert done.ok
    assert calls == [("read", {"path": "new.csv"}), ("write", {"path": "to.csv", "text": "new text"})]


def test_a_reply_to_a_question_that_nothing_explains_is_refused_before_anything_is_done() -> None:
    def reported(path: str, text: str, name: str) -> Trace:
        steps = [
            ("write", {"path": "log.txt", "text": path}, None, "write"),
            ("llm.query", {"prompt": f"of {len(text)} letters"}, text.upper(), "llm"),
        ]
        return trace("shout", {"path": path}, steps, text.upper(), name=name)

    traces = [reported(path, path * 3, path) for path in ("alpha", "beta", "epsilon")]
    done, calls = told(traces, {"path": "delta"}, {})
    assert calls == []
    assert "cannot be put in the same words" in (done.refused or "")


def test_a_look_that_flows_nowhere_decides_something_and_must_be_as_it_was() -> None:
    def better(first: str, losses: tuple[float, float], name: str) -> Trace:
        second = f"not-{first}"
        steps = [("read", {"path": first}, losses[0]), ("read", {"path": second}, losses[1])]
        return trace("which is better", {"first": first, "second": second}, steps, first, name=name)

    traces = [better(f"run-{at}", (0.1 * at, 0.5), f"e{at}") for at in range(4)]
    params = {"first": "run-9", "second": "not-run-9"}
    done, _ = told(traces, params, {"run-9": 0.9, "not-run-9": 0.2})
    assert "no course saw" in (done.refused or "")
    assert told(traces, params, {"run-9": 0.2, "not-run-9": 0.5})[0].output == "run-9"
