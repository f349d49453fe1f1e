"""Recorded courses played back: what counts as the same course, and what does not."""

from collections.abc import Callable
from typing import Any

import pytest

from morphogen.consumers.crystallizer import Tape, Use
from morphogen.kernels.sandbox import Capabilities, Declared, Refused


def read(path: str, result: Any = "text", **more: Any) -> Use:
    return Use(name="files.read_text", args={"path": path}, effect="read", result=result, **more)


def write(path: str, text: str = "t", **more: Any) -> Use:
    return Use(name="files.write_text", args={"path": path, "text": text}, effect="write", **more)


def post(url: str) -> Use:
    return Use(name="http.post", args={"url": url}, effect="external", result={"ok": True})


def play(tape: Tape, name: str, *args: Any, **named: Any) -> Any:
    return tape.capabilities.functions[name].function(*args, **named)


def test_the_same_course_has_no_fault() -> None:
    tape = Tape([read("a", "one"), write("b"), read("b", "t")])
    assert play(tape, "files.read_text", path="a") == "one"
    assert play(tape, "files.write_text", text="t", path="b") is None
    assert play(tape, "files.read_text", path="b") == "t"
    assert tape.fault() is None
    assert [use.name for use in tape.uses] == ["files.read_text", "files.write_text", "files.read_text"]


@pytest.mark.parametrize(
    ("steps", "act", "told"),
    [
        ([write("a")], lambda tape: play(tape, "files.write_text", path="a", text="other"), "calls files.write_text"),
        (
            [write("a"), write("b")],
            lambda tape: play(tape, "files.write_text", path="b", text="t"),
            "where the execution",
        ),
        ([write("a")], lambda tape: play(tape, "files.write_text", path="c", text="t"), "next"),
        ([read("a")], lambda tape: play(tape, "files.read_text", path="b"), "calls files.read_text"),
        ([], lambda tape: None, ""),
    ],
)
def test_another_course_is_a_divergence_and_nothing_is_answered_after_it(
    steps: list[Use], act: Callable[[Tape], Any], told: str
) -> None:
    tape = Tape(steps)
    if not steps:
        assert tape.fault() is None
        return
    with pytest.raises(Refused):
        act(tape)
    assert told in str(tape.fault())
    with pytest.raises(Refused):
        play(tape, steps[0].name, **steps[0].args)


def test_a_change_that_is_left_out_is_a_fault() -> None:
    tape = Tape([write("a"), post("u")])
    play(tape, "files.write_text", path="a", text="t")
    assert tape.fault() == "it leaves out http.post(url='u')"


def test_a_change_is_made_once() -> None:
    tape = Tape([write("a")])
    play(tape, "files.write_text", path="a", text="t")
    with pytest.raises(Refused):
        play(tape, "files.write_text", path="a", text="t")
    assert "nothing" in str(tape.fault())


def test_looks_come_in_any_order_and_as_often_as_asked_between_the_same_changes() -> None:
    tape = Tape([read("a", 1), read("b", 2), write("c")])
    assert [play(tape, "files.read_text", path=path) for path in "baab"] == [2, 1, 1, 2]
    play(tape, "files.write_text", path="c", text="t")
    assert tape.fault() is None


def test_a_look_of_before_a_change_is_not_the_one_after_it() -> None:
    asked = Use(name="sql.query", args={"q": "x"}, effect="read", result=1)
    tape = Tape([asked, Use(name="sql.run", args={"q": "y"}, effect="write")])
    play(tape, "sql.run", q="y")
    with pytest.raises(Refused):
        play(tape, "sql.query", q="x")


def test_a_file_may_be_read_after_another_was_written() -> None:
    steps = [read("in/a", 1), write("out/b"), write("in/a")]
    tape = Tape(steps)
    play(tape, "files.write_text", path="out/b", text="t")
    assert play(tape, "files.read_text", path="in/a") == 1
    play(tape, "files.write_text", path="in/a", text="t")
    with pytest.raises(Refused):
        play(Tape(steps, Capabilities()), "files.read_text", path="other")
    late = Tape(steps)
    play(late, "files.write_text", path="out/b", text="t")
    play(late, "files.write_text", path="in/a", text="t")
    with pytest.raises(Refused):
        play(late, "files.read_text", path="in/a")


def test_a_folder_is_not_listed_across_a_write_below_it() -> None:
    listed = Use(name="files.list_folder", args={"path": "out"}, effect="read", result=[])
    tape = Tape([listed, write("out/b")])
    play(tape, "files.write_text", path="out/b", text="t")
    with pytest.raises(Refused):
        play(tape, "files.list_folder", path="out")


def test_a_retry_counts_once_and_a_failure_alone_fails_again() -> None:
    tape = Tape(
        [read("a", None, ok=False, error="busy"), read("a", "now"), write("b", ok=False, error="full"), write("b")]
    )
    assert play(tape, "files.read_text", path="a") == "now"
    play(tape, "files.write_text", path="b", text="t")
    assert tape.fault() is None
    alone = Tape([read("a", None, ok=False, error="there is no file")])
    with pytest.raises(Refused, match="there is no file"):
        play(alone, "files.read_text", path="a")
    assert alone.fault() is None


def test_a_read_that_gave_two_answers_gives_them_in_their_order() -> None:
    tape = Tape([read("status", "busy"), read("status", "done")])
    assert [play(tape, "files.read_text", path="status") for _ in range(2)] == ["busy", "done"]
    with pytest.raises(Refused):
        play(tape, "files.read_text", path="status")


def test_what_was_not_read_is_told_once_each_and_pure_functions_are_not() -> None:
    pure = Use(name="calc", args={"x": 1}, effect="pure", result=2)
    tape = Tape([read("a"), read("b"), read("b"), pure])
    play(tape, "files.read_text", path="a")
    assert [dict(step.args) for step in tape.unread] == [{"path": "b"}]


def test_positional_arguments_and_defaults_go_by_the_real_signature() -> None:
    def fetch(url: str, tries: int = 3) -> str:
        raise AssertionError("the real function is never called")

    real = Capabilities(tools={"web.fetch": Declared(fetch, "read")})
    step = Use(name="web.fetch", args={"url": "u"}, effect="read", result="page")
    tape = Tape([step], real)
    assert play(tape, "web.fetch", "u") == "page"
    assert play(tape, "web.fetch", "u", 3) == "page"
    with pytest.raises(Refused):
        play(tape, "web.fetch", "u", nothing=1)
    with pytest.raises(Refused):
        play(Tape([step], real), "web.fetch", "u", 4)
