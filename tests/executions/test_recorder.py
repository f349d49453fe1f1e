"""What an agent does is recorded as it was done, however it ends."""

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from morphogen.kernels.sandbox import Capabilities, Declared, value_sha256
from morphogen.kernels.sandbox.inside.codec import decode, encode
from morphogen.producers.executions import (
    ExecutionError,
    Price,
    Prices,
    PricesError,
    current,
    environment_of,
    execution,
    feedback,
    read_prices,
    settled,
)
from morphogen.schemas import decode_event
from morphogen.schemas.executions import ExecutionFeedback, ExecutionFinished, ExecutionStarted, ExecutionStep

from .conftest import Told

PRICES = Prices({"m": Price(150_000, 600_000)})


def steps(told: Told) -> list[ExecutionStep]:
    return [event for event in told.events if isinstance(event, ExecutionStep)]


def end(told: Told) -> ExecutionFinished:
    (found,) = [event for event in told.events if isinstance(event, ExecutionFinished)]
    return found


def test_an_execution_tells_what_was_asked_what_was_done_and_what_came_of_it(told: Told, tools: Capabilities) -> None:
    params = {"column": "price", "path": "shop.csv"}
    with execution("Sum the column price of shop.csv", params, capabilities=tools, to=told, environment={"n": 1}) as ex:
        text = ex.call("files.read_text", "shop.csv")
        total = ex.call("calc.add", 1, b=2)
        ex.finish(total, judged_by="assertion", score=1)

    assert text == "price\n1\n2\n"
    started = told.events[0]
    assert isinstance(started, ExecutionStarted)
    assert (started.template, started.params) == ("sum the column {column} of {path}", params)
    assert started.environment["n"] == "1"
    assert started.environment_sha256 == value_sha256(started.environment)
    read, add = steps(told)
    assert (read.number, read.name, read.args, read.effect) == (0, "files.read_text", {"path": "shop.csv"}, "read")
    assert (read.result, read.result_sha256, read.args_sha256) == (
        text, value_sha256(text), value_sha256({"path": "shop.csv"}),
    )  # fmt: skip
    assert (add.args, add.result, add.effect, add.ok) == ({"a": 1, "b": 2}, 3, "pure", True)
    finished = end(told)
    assert (finished.outcome, finished.judged_by, finished.output, finished.steps) == ("success", "assertion", 3, 2)
    assert (finished.output_sha256, finished.score, finished.cost_microusd) == (value_sha256(3), 1.0, 0)
    assert finished.duration_ns >= read.duration_ns + add.duration_ns > 0


def test_arguments_are_recorded_by_name_where_they_have_one(told: Told, tools: Capabilities) -> None:
    with execution("Do it", capabilities=tools, to=told) as ex:
        ex.call("many", 1, 2, x=3)
        ex.call("calc.add", b=2, a=(1 + 0))

    assert [step.args for step in steps(told)] == [{"items0": 1, "items1": 2, "x": 3}, {"a": 1, "b": 2}]


def test_a_tool_that_is_awaited_is_recorded_like_others(told: Told) -> None:
    async def slow(path: str) -> str:
        await asyncio.sleep(0)
        if path == "none":
            raise FileNotFoundError(path)
        return path.upper()

    tools = Capabilities(tools={"net.get": Declared(slow), "up": Declared(str.upper, "pure")})

    async def main() -> None:
        with execution("Fetch", capabilities=tools, to=told) as ex:
            with pytest.raises(ExecutionError, match="is to be awaited; use"):
                ex.call("net.get", path="a")
            assert await ex.acall("net.get", path="a") == "A"
            assert await ex.acall("up", "a") == "A"
            with pytest.raises(FileNotFoundError):
                await ex.acall("net.get", path="none")

    asyncio.run(main())

    assert [(step.name, step.ok, step.result) for step in steps(told)] == [
        ("net.get", True, "A"), ("up", True, "A"), ("net.get", False, None),
    ]  # fmt: skip


def test_arguments_are_recorded_as_they_were_before_the_tool_had_them(told: Told) -> None:
    def drain(items: list[int]) -> int:
        return sum(items.pop() for _ in range(len(items)))

    with execution("Sum", capabilities=Capabilities(tools={"drain": drain}), to=told) as ex:
        assert ex.call("drain", items=[1, 2, 3]) == 6

    assert steps(told)[0].args == {"items": [1, 2, 3]}


def test_what_a_tool_raises_is_recorded_and_raised_again(told: Told, tools: Capabilities) -> None:
    with pytest.raises(ValueError, match="not\ntoday"), execution("Do it", capabilities=tools, to=told) as ex:
        ex.call("fails", reason="not\ntoday")

    (step,) = steps(told)
    assert (step.ok, step.error, step.result, step.result_sha256) == (False, "ValueError: not today", None, None)
    finished = end(told)
    assert (finished.outcome, finished.judged_by, finished.error) == ("failure", "exception", "ValueError: not today")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TimeoutError("slow"), "timeout"),
        (KeyboardInterrupt(), "cancelled"),
        (asyncio.CancelledError(), "cancelled"),
        (SystemExit(3), "failure"),
        (SystemExit(143), "cancelled"),
        (SystemExit(0), "success"),
    ],
)
def test_how_a_block_is_left_is_its_outcome(error: BaseException, outcome: str, told: Told) -> None:
    with pytest.raises(type(error)), execution("Do it", to=told):
        raise error

    assert end(told).outcome == outcome


def test_a_block_that_ends_by_itself_succeeds_and_nobody_has_judged_it(told: Told) -> None:
    with execution("Do it", to=told) as ex:
        pass

    assert (end(told).outcome, end(told).judged_by, end(told).cost_microusd) == ("success", "nobody", 0)
    with pytest.raises(ExecutionError, match="has ended as success; judge it with feedback"):
        ex.finish()
    with pytest.raises(ExecutionError, match="has ended"):
        ex.step("late")
    assert ex.finished == end(told)


def test_what_fails_after_it_was_called_a_success_is_judged_again(told: Told) -> None:
    with pytest.raises(RuntimeError), execution("Do it", to=told) as ex:
        ex.finish(1)
        raise RuntimeError("the answer was wrong")

    judged = told.events[-1]
    assert judged == ExecutionFeedback(
        execution=ex.id, outcome="failure", judged_by="exception", note="RuntimeError: the answer was wrong"
    )
    assert told.families().outcome(ex.id) == "failure"


def test_misuse_is_said_in_one_line(told: Told, tools: Capabilities) -> None:
    with pytest.raises(ExecutionError, match="the mode 'best' is none of crystallized"):
        execution("Do it", mode="best", to=told)
    with pytest.raises(ExecutionError, match="a goal is a sentence"):
        execution("  ", to=told)
    ex = execution("Do it", capabilities=tools, to=told)
    with pytest.raises(ExecutionError, match="has not begun"):
        ex.step("tool")
    with pytest.raises(ExecutionError, match="has not begun"):
        ex.call("files.write_text", path="never", text="")
    ex.begin()
    assert not tools.workspace.exists("never")  # type: ignore[union-attr]
    with pytest.raises(ExecutionError, match=r"there is no tool 'files.delete' here, only calc\.add, fails, files"):
        ex.call("files.delete")
    with pytest.raises(ExecutionError, match="of kind tool or llm"):
        ex.step("tool", kind="thought")
    with pytest.raises(ExecutionError, match="an outcome is one of success"):
        ex.finish(outcome="fine")
    with pytest.raises(ExecutionError, match="feedback is success or failure"):
        feedback(ex.id, "cancelled", to=told)
    assert len(told.events) == 1


def test_a_cost_is_told_or_configured_or_not_known(told: Told) -> None:
    with execution("Ask", to=told, prices=PRICES) as ex:
        ex.asked(model="m", prompt="p", reply="r", tokens_in=1000, tokens_out=11)
        ex.asked(model="m", prompt="p", reply="r", cost_microusd=5)
        ex.asked(model="m", prompt="p", reply="r", backend="script", tokens_in=9, tokens_out=9)
        assert ex.spent_microusd == 157 + 5
        ex.asked(model="other", prompt="p", reply="r", tokens_in=9, tokens_out=9)

    assert [(step.cost_microusd, step.priced_by) for step in steps(told)] == [
        (157, "prices"), (5, "told"), (0, "script"), (None, None),
    ]  # fmt: skip
    assert {(step.kind, step.name, step.effect) for step in steps(told)} == {("llm", "llm.query", "read")}
    assert ex.spent_microusd is None
    assert end(told).cost_microusd is None


def test_tools_that_tell_no_cost_leave_the_cost_of_models_known(told: Told, tools: Capabilities) -> None:
    with execution("Ask", to=told, prices=PRICES, capabilities=tools) as ex:
        ex.call("calc.add", 1)
        ex.step("api.search", {"q": "x"}, ["hit"], cost_microusd=3)
        ex.asked(model="m", prompt="p", error="busy", tokens_in=1000, tokens_out=0, duration_ns=7, system="s")

    assert [step.cost_microusd for step in steps(told)] == [None, 3, 150]
    assert steps(told)[2].args == {"prompt": "p", "system": "s"}
    assert end(told).cost_microusd == 153


def test_prices_come_from_a_file_and_a_bad_one_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_prices(home).models == {}
    (home / "prices.toml").write_text('["gpt-4.1 mini"]\ninput = 400000\noutput = 1600000\n')
    assert read_prices(home).cost("gpt-4.1 mini", 10, 10) == (20, "prices")
    (home / "prices.toml").write_text('["m"]\ninput = "cheap"\n')
    with pytest.raises(PricesError, match=r"prices\.toml: Expected `int`, got `str`.*micro-dollars a million"):
        read_prices(home)
    monkeypatch.setenv("MORPHOGEN_PRICES", str(home / "none.toml"))
    with pytest.raises(PricesError, match="MORPHOGEN_PRICES names"):
        read_prices(home)


def test_an_execution_inside_another_names_it_as_its_parent(told: Told) -> None:
    assert current() is None
    with execution("Outer", to=told) as outer:
        assert current() is outer
        with execution("Inner", to=told) as inner:
            assert inner.started.parent == outer.id
        with execution("Foster", to=told, parent="x") as foster:
            assert foster.started.parent == "x"
    assert current() is None


def test_large_values_are_kept_apart_under_their_own_hash(told: Told, tools: Capabilities) -> None:
    with execution("Read it", capabilities=tools, to=told) as ex:
        text = ex.call("files.read_text", path="large.txt")
        ex.finish([text])

    (step,) = steps(told)
    assert (step.result, step.result_blob) == (None, step.result_sha256.removeprefix("sha256:"))  # type: ignore[union-attr]
    trace = told.families().trace(ex.id)
    assert trace is not None
    assert (trace.whole, len(trace.blobs)) == (False, 2)
    whole = trace.with_values({name: decode(data) for name, data in told.blobs.items()})
    assert (whole.whole, whole.steps[0].result, whole.output) == (True, text, [text])


def test_large_values_travel_in_the_event_where_no_broker_takes_them(told: Told, tools: Capabilities) -> None:
    told.broker = False
    with execution("Read it", capabilities=tools, to=told) as ex:
        text = ex.call("files.read_text", path="large.txt")

    assert (steps(told)[0].result, steps(told)[0].result_blob) == (text, None)
    assert told.families().trace(ex.id).whole  # type: ignore[union-attr]


def test_steps_of_many_threads_are_numbered_once(told: Told, tools: Capabilities) -> None:
    with execution("Add", capabilities=tools, to=told) as ex:
        threads = [
            threading.Thread(target=lambda: [ex.call("calc.add", at) for at in range(25)]) for _ in range(4)
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert sorted(step.number for step in steps(told)) == list(range(100))
    assert end(told).steps == 100


def test_the_environment_names_what_was_asked_for() -> None:
    found = environment_of(["msgspec", "no-such-package"], {"region": "eu", "workers": 3})

    assert found.keys() == {"python", "platform", "package.msgspec", "package.no-such-package", "region", "workers"}
    assert (found["package.no-such-package"], found["workers"]) == ("absent", "3")
    assert found["python"].count(".") == 1


class Odd:
    def __repr__(self) -> str:
        return "<odd>"


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=9),
              st.sampled_from(["\ud800", 2**70, -(2**63), 1.5, Odd(), datetime(2026, 1, 2, tzinfo=UTC), Path("a"),
                               np.float32(0.5), np.arange(3), {3, 4}, (1, 2), bytearray(b"x"), b"\xff"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.tuples(inner, inner),
                            st.dictionaries(st.one_of(st.text(max_size=3), st.integers(), st.booleans(), st.floats()),
                                            inner, max_size=3)),
    max_leaves=8,
)  # fmt: skip


class Hostile(dict[str, int]):
    def items(self) -> Any:
        raise RuntimeError("no")

    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_no_value_stops_who_records_it(told: Told) -> None:
    around: list[Any] = []
    around += [around, around]
    deep: Any = 1
    for _ in range(3000):
        deep = [deep]
    with execution("keep odd values", {"deep": deep}, to=told) as ex:
        for value in (deep, around, 10**5000, {10**5000: 1}, Hostile(), "\ud83d", {None: {0.5: Path("a")}}):
            ex.step("tool", {"given": value}, value, effect="read")
        ex.finish(deep)
    assert ex.steps == 7
    assert settled({None: 1, 0.5: Path("a")}) == {"None": 1, "0.5": "a"}
    assert settled(10**5000) == hex(10**5000)


@given(VALUES)
def test_any_value_is_recorded_as_one_that_a_sandboxed_tool_could_be_given(value: Any) -> None:
    once = settled(value)

    assert value_sha256(settled(once)) == value_sha256(once)
    crossed = decode(encode(once, 1 << 24))
    assert value_sha256(crossed) == value_sha256(once)
    event = ExecutionStep(execution="x", number=0, kind="tool", name="t", result=once)
    read = decode_event(event.type, event.version, event.encode())
    assert isinstance(read, ExecutionStep)
    assert value_sha256(read.result) == value_sha256(once)
