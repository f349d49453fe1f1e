"""A value that was recorded and a value that a sandboxed tool got have one hash."""

import pytest

from morphogen.kernels.sandbox import Capabilities, LayerMissing, Sandbox, canonical, value_sha256
from morphogen.producers.executions import execution
from morphogen.schemas.executions import ExecutionStep

from .conftest import Told


def test_what_is_recorded_is_what_a_tool_is_given(told: Told, tools: Capabilities) -> None:
    with execution("Read it", capabilities=tools, to=told) as ex:
        ex.call("files.read_text", path="shop.csv")
        ex.call("calc.add", a=0.5, b=1)
    text = "def run():\n    return [files.read_text(path='shop.csv'), calc.add(a=0.5, b=1)]\n"
    try:
        with Sandbox(capabilities=tools, pool=0) as sandbox:
            outcome = sandbox.run(text)
    except LayerMissing as missing:
        pytest.skip(f"this machine has not what the sandbox requires: {missing}")

    recorded = [event for event in told.events if isinstance(event, ExecutionStep)]
    assert [effect.result for effect in outcome.effects] == [step.result_sha256 for step in recorded]
    assert [effect.effect for effect in outcome.effects] == [step.effect for step in recorded]
    assert value_sha256(outcome.value) == value_sha256([step.result for step in recorded])


def test_the_hash_knows_types_and_no_order_of_keys() -> None:
    assert value_sha256({"a": 1, 2: (1, 2)}) == value_sha256({2: [1, 2], "a": 1})
    assert len({value_sha256(value) for value in (1, 1.0, True, "1", b"1", [1], None)}) == 7
    assert canonical({"b": None, "a": -0.0}) == b"\x82\xa1a\xcb\x80" + b"\x00" * 7 + b"\xa1b\xc0"
