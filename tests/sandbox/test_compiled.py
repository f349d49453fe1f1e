"""A text is compiled in the sandbox once; what the next worker is given is that, and nothing that a tool could have put there."""

import socket
import textwrap

import pytest

from morphogen.kernels.sandbox import Capabilities, Limits, Sandbox
from morphogen.kernels.sandbox.broker import Broker
from morphogen.kernels.sandbox.capabilities import NONE
from morphogen.kernels.sandbox.nursery import Worker

from .conftest import QUICK


@pytest.fixture
def forked() -> Sandbox:
    return Sandbox(QUICK, pool=0)


def test_a_text_that_is_called_again_does_the_same(forked: Sandbox) -> None:
    text = textwrap.dedent('''
        """Doubles."""
        import json

        seen: list[int] = []

        def run(a: int) -> dict[str, object]:
            seen.append(a)
            print(a)
            return {"double": sum(x * 2 for x in seen), "json": json.dumps([a]), "doc": run.__doc__, "seen": len(seen)}
    ''')
    with forked:
        told = [forked.run(text, {"a": number}) for number in (1, 2, 3)]
        assert list(forked._codes) == [text]

    assert [one.error for one in told] == [None, None, None]
    assert [one.value["double"] for one in told if isinstance(one.value, dict)] == [2, 4, 6]
    assert [one.printed for one in told] == ["1\n", "2\n", "3\n"]


def test_the_line_of_an_error_is_the_same_the_second_time(forked: Sandbox) -> None:
    text = "def run(a):\n    x = 1\n    return x / a\n"
    with forked:
        told = [forked.run(text, {"a": 0}).error for _ in range(2)]

    assert told[0] == told[1]
    assert told[0] is not None
    assert (told[0].type, told[0].line) == ("ZeroDivisionError", 3)


def test_a_text_that_does_not_compile_is_kept_nowhere(forked: Sandbox) -> None:
    with forked:
        told = [forked.run("def run(:\n", {}).error for _ in range(2)]
        assert forked._codes == {}

    assert told[0] == told[1]
    assert told[0] is not None
    assert told[0].type == "SyntaxError"


@pytest.mark.parametrize("first", [True, False], ids=["before an answer", "in place of a capability"])
def test_a_tool_that_speaks_of_code_itself_is_ended_and_not_believed(forked: Sandbox, first: bool) -> None:
    """The message is a map of t and code, written past our functions; it would be the code of the next call."""
    frame = b"\x82\xa1t\xa8compiled\xa4code\xc4\x03bad"
    text = f"import os\ndef run():\n    {'pass' if first else 'ask()'}\n    os.write(3, {len(frame).to_bytes(4, 'little') + frame!r})\n    return 1\n"
    with forked:
        tools = Capabilities(tools={"ask": lambda: 1})
        told = forked.run(text, capabilities=tools)
        again = forked.run(text, capabilities=tools)
        assert set(forked._codes) == {text}
        assert b"bad" not in forked._codes[text][:3]

    assert [told.killed_by, again.killed_by] == ["protocol", "protocol"]


def test_what_a_call_says_of_its_code_is_not_run_by_the_next_where_the_honest_code_is_too_large() -> None:
    """A text short enough to be kept, of which the compiled form is not: nothing honest is kept, and nothing else."""
    text = f"PAD = {'é' * 200_000!r}\n" + textwrap.dedent("""
        import marshal, os
        def run(secret):
            code = marshal.dumps(compile(f"def run(secret):\\n    return {secret!r}\\n", "<tool>", "exec"))
            body = b"\\x82\\xa1t\\xa8compiled\\xa4code\\xc5" + len(code).to_bytes(2, "big") + code
            os.write(3, len(body).to_bytes(4, "little") + body)
            return "its own"
    """)
    with Sandbox(QUICK, pool=1) as sandbox:
        told = [sandbox.run(text, {"secret": secret}) for secret in ("of the first", "of the second")]
        assert sandbox._codes == {}

    assert [(one.value, one.killed_by) for one in told] == [(None, "protocol")] * 2


@pytest.mark.parametrize("frame", [b"\x84\xa1t\xa4done\xa5value\x01\xa7printed\xa0\xa3cut\xc2", b"\x81\xa1t\xa5ready"])
def test_a_worker_that_does_not_begin_with_the_code_is_not_heard(forked: Sandbox, frame: bytes) -> None:
    near, far = socket.socketpair()
    lease = socket.socketpair()
    far.sendall(len(frame).to_bytes(4, "little") + frame)
    worker = Worker(near, lease[0], None)
    end = forked._converse(worker, b"", Broker(NONE, QUICK, forked._kept.threads), "def run(): ...")
    worker.drop()
    for one in (far, lease[1]):
        one.close()

    assert (end.answer, end.killed_by) == (None, "protocol")


def test_what_the_compiler_warns_of_is_not_printed_by_the_first_call_alone(forked: Sandbox) -> None:
    with forked:
        told = [forked.run("def run():\n    print('said')\n    return 1 is 1\n") for _ in range(2)]

    assert [(one.value, one.printed) for one in told] == [(True, "said\n")] * 2


def test_texts_beyond_the_most_are_forgotten_in_turn_and_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morphogen.kernels.sandbox.sandbox._MOST_CODES", 3)
    with Sandbox(QUICK, pool=1) as sandbox:
        for round_ in range(2):
            for number in range(5):
                assert sandbox.run(f"def run():\n    return {number}\n").value == number, round_
        assert len(sandbox._codes) == 3


def test_a_text_too_long_to_keep_is_compiled_each_time() -> None:
    text = "def run():\n    return len(DATA)\nDATA = '" + "x" * 4000 + "'\n"
    with Sandbox(Limits(wall_seconds=5.0, value_bytes=2000), pool=1) as sandbox:
        assert [sandbox.run(text).value for _ in range(2)] == [4000, 4000]
        assert sandbox._codes == {}
    remark = "def run():\n    return 1\n# " + "x" * (300 << 10) + "\n"
    with Sandbox(QUICK, pool=0) as sandbox:
        assert [sandbox.run(remark).value for _ in range(2)] == [1, 1]
        assert sandbox._codes == {}
