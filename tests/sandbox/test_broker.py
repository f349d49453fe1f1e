"""What declared functions do to the host that calls them: nothing but what is recorded, whatever they raise and change."""

import os
import signal
from collections.abc import Iterator

import pytest

from morphogen.kernels.sandbox import Capabilities, Declared, Limits, Sandbox, value_sha256

from .conftest import QUICK

CALLS = """
def run():
    try:
        return act([1])
    except ToolError as error:
        return str(error)
"""


class Odd(BaseException):
    pass


@pytest.fixture
def own() -> Iterator[Sandbox]:
    with Sandbox(QUICK, pool=0) as sandbox:
        yield sandbox


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, Odd, ValueError])
def test_what_would_end_the_host_is_a_failure_of_the_function(
    own: Sandbox, kind: type[BaseException], waits: bool
) -> None:
    def act(_: object) -> None:
        raise kind("out")

    told = own.run(CALLS, capabilities=Capabilities(tools={"act": Declared(act, waits=waits)}))
    shown = "ValueError: out" if kind is ValueError else f"RuntimeError: {kind.__name__}('out')"
    assert told.value == f"act failed: {shown}"
    assert told.effects[0].error == told.value


@pytest.fixture
def interruptible() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("waits", [True, False])
def test_an_interrupt_while_a_function_runs_comes_to_the_caller(waits: bool) -> None:
    def act(_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause() if not waits else None

    with Sandbox(QUICK, pool=1, capabilities=Capabilities(tools={"act": Declared(act, waits=waits)})) as sandbox:
        with pytest.raises(KeyboardInterrupt):
            sandbox.run(CALLS)
        assert sandbox.run("def run():\n    return 1\n").value == 1


@pytest.mark.parametrize("waits", [True, False])
def test_the_arguments_that_are_recorded_are_those_that_were_asked_with(own: Sandbox, waits: bool) -> None:
    def act(items: list[object]) -> int:
        items.append(object())  # of a type that no hash is made of
        return len(items)

    told = own.run(CALLS, capabilities=Capabilities(tools={"act": Declared(act, waits=waits)}))
    assert told.value == 2
    assert told.effects[0].arguments == value_sha256([[[1]], {}])


def test_a_refusal_is_told_however_little_a_value_may_hold() -> None:
    def act(_: object) -> None:
        raise ValueError("\U0001f600" * 3000)

    text = CALLS.replace("str(error)", "len(str(error))")
    with Sandbox(Limits(value_bytes=40), pool=0, capabilities=Capabilities(tools={"act": act})) as sandbox:
        assert sandbox.run(text).value == 1000
