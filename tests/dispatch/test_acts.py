"""Nothing is done twice for one request."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from morphogen.consumers.dispatch.acts import Acts, told, watched
from morphogen.kernels.sandbox import Capabilities, Declared, Refused


class Post:
    """An outside world that counts."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.broken = False

    def send(self, text: str, loud: bool = False) -> int:
        self.sent.append(text)
        if self.broken:
            raise TimeoutError("no answer")
        return len(self.sent)


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def both(post: Post, caps: Capabilities) -> Capabilities:
    return Capabilities(tools={**caps.functions, "post.send": Declared(post.send, "external")})


def use(given: Capabilities, name: str, *args: Any, **named: Any) -> Any:
    return given.functions[name].function(*args, **named)


def test_what_another_mode_did_is_answered_from_the_record_once(both: Capabilities, post: Post) -> None:
    acts = Acts(watched(both))
    first = acts.begin()
    assert use(first, "post.send", "hello") == 1
    assert use(first, "post.send", text="hello") == 2  # one mode may do a thing twice
    second = acts.begin()
    assert use(second, "post.send", text="hello", loud=False) == 1
    assert use(second, "post.send", "hello") == 2
    assert use(second, "post.send", "hello") == 3
    assert use(second, "post.send", "another") == 4
    assert post.sent == ["hello"] * 3 + ["another"]
    assert [act.again for act in acts.of_mode] == [True, True, False, False]
    assert [act.args for act in acts.changes] == [{"text": "hello"}] * 3 + [{"text": "another"}]


def test_a_third_mode_knows_what_both_before_it_did(both: Capabilities, post: Post) -> None:
    acts = Acts(watched(both))
    use(acts.begin(), "post.send", "one")
    second = acts.begin()
    use(second, "post.send", "one")
    use(second, "post.send", "two")
    third = acts.begin()
    use(third, "post.send", "two")
    use(third, "post.send", "one")
    assert post.sent == ["one", "two"]


def test_an_external_act_that_failed_may_have_happened_and_is_not_tried_again(both: Capabilities, post: Post) -> None:
    acts = Acts(watched(both))
    post.broken = True
    with pytest.raises(TimeoutError):
        use(acts.begin(), "post.send", "hello")
    post.broken = False
    second = acts.begin()
    with pytest.raises(Refused, match="may have happened"):
        use(second, "post.send", "hello")
    assert post.sent == ["hello"]


def test_reads_are_made_anew_and_a_write_that_failed_is_tried_again(both: Capabilities, folder: Path) -> None:
    acts = Acts(watched(both))
    first = acts.begin()
    with pytest.raises(Refused):
        use(first, "files.write_text", "nowhere/a.txt", "text")
    with pytest.raises(Refused, match="there is no file"):
        use(first, "files.read_text", "a.txt")
    (folder / "nowhere").mkdir()
    (folder / "a.txt").write_text("one")
    second = acts.begin()
    assert use(second, "files.read_text", "a.txt") == "one"
    use(second, "files.write_text", path="nowhere/a.txt", text="text")
    assert (folder / "nowhere/a.txt").read_text() == "text"


def test_the_watched_functions_keep_their_signatures_and_effects(both: Capabilities) -> None:
    given = Acts(watched(both)).begin()
    for name, declared in both.functions.items():
        assert given.functions[name].effect == declared.effect
        assert inspect.signature(given.functions[name].function) == inspect.signature(declared.function)


def test_every_act_is_told_as_it_ends(both: Capabilities) -> None:
    acts, heard = Acts(watched(both)), []
    given = acts.begin(lambda number, act: heard.append((number, act.name, act.ok)))
    use(given, "files.exists", "a.txt")
    with pytest.raises(Refused):
        use(given, "files.read_text", "a.txt")
    assert heard == [(0, "files.exists", True), (1, "files.read_text", False)]


def test_two_spellings_of_a_call_are_one(both: Capabilities) -> None:
    known = watched(both)
    assert known["files.list_folder"].without_defaults({"path": ""}) == {}
    assert known["post.send"].without_defaults({"text": "a", "loud": True}) == {"text": "a", "loud": True}


def test_arguments_by_place_alone_and_of_any_number_reach_their_function() -> None:
    def joined(first: str, /, *rest: str) -> str:
        return "-".join([first, *rest])

    tools = {"join": Declared(joined, "pure"), "biggest": Declared(max, "pure")}
    acts = Acts(watched(Capabilities(tools=tools)))
    given = acts.begin()
    assert use(given, "join", "a", "b", "c") == "a-b-c"
    assert use(given, "biggest", 3, 9, 4) == 9
    with pytest.raises(Refused, match="missing a required argument"):
        use(given, "join")


def test_an_act_is_told_in_one_short_line(both: Capabilities) -> None:
    acts = Acts(watched(both))
    use(acts.begin(), "post.send", "x" * 1000)
    line = told(acts.all[0])
    assert line.startswith("post.send(text='xxx")
    assert len(line) == 200
