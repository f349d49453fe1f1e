"""A text is compiled in the sandbox once; what the next worker is given is that, and nothing that a tool could have put there."""

import textwrap

import pytest

from morphogen.kernels.sandbox import Capabilities, Limits, Sandbox

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
