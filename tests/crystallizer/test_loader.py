"""The tools in use: loaded, replaced while they are called, refused, called behind guards, and run beside."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from morphogen.consumers.crystallizer import GuardMissed, Loader, NoTool, Registry, Use, move
from morphogen.consumers.crystallizer.source import source_sha256
from morphogen.kernels.sandbox import Capabilities, Declared, Sandbox, Workspace, value_sha256
from morphogen.schemas import CrystalInvoked, CrystalMoved, CrystalRegistered, Event
from morphogen.schemas.crystals import Guard

FAMILY = "g1-00000000000000aa"
TOOL = "tool_00000000000000aa"
HERE = {"python": "3.11"}
INT = [Guard(kind="type", subject="n", expected="int")]


def version(number: int, body: str = "return n", **changes: Any) -> CrystalRegistered:
    source = f"def run(n: int) -> int:\n    {body}\n" if "def " not in body else body
    told = {
        "tool": TOOL, "signature": FAMILY, "attempt": f"a{number}", "source": source,
        "source_sha256": source_sha256(changes.get("source", source)), "returns": "int", "guards": INT,
    }  # fmt: skip
    return CrystalRegistered(number=number, **{**told, **changes})


def promoted(number: int, over: int | None = None) -> list[CrystalMoved]:
    before = [] if over is None else [move(TOOL, over, "active", "superseded", "newer")]
    return [*before, move(TOOL, number, "shadow", "active", "good")]


def loader_of(events: list[Event], sandbox: Sandbox, capabilities: Capabilities | None = None, **more: Any) -> Loader:
    return Loader(Registry(events), capabilities or Capabilities(), sandbox, **more)


def call(loader: Loader, n: Any = 3, **more: Any) -> Any:
    return loader.call(FAMILY, {"n": n}, "r1", HERE, **more)


def test_all_active_tools_return_at_boot_and_no_others(sandbox: Sandbox) -> None:
    other = version(1, tool="tool_00000000000000bb", signature="g1-00000000000000bb")
    loader = loader_of([version(1, "return n + 1"), *promoted(1), version(2), other], sandbox)
    assert loader.boot.loaded == ((TOOL, 1),)
    called = call(loader)
    assert (called.ok, called.value, called.number) == (True, 4, 1)
    assert called.invoked.ok
    assert called.invoked.request == "r1"
    assert "seccomp" in called.invoked.layers
    assert called.invoked.duration_ns > 0
    with pytest.raises(NoTool):
        loader.call("g1-00000000000000bb", {"n": 1}, "r", HERE)
    waiting = loader.shadowing(FAMILY)
    assert waiting is not None
    assert waiting.number == 2


def test_a_new_version_takes_over_without_a_restart_and_a_rollback_brings_the_old_one_back(sandbox: Sandbox) -> None:
    loader = loader_of([version(1, "return 1"), *promoted(1)], sandbox)
    done = loader.refresh([version(2, "return 2"), *promoted(2, over=1)])
    assert (done.loaded, done.dropped) == (((TOOL, 2),), ((TOOL, 1),))
    assert call(loader).value == 2
    loader.refresh([move(TOOL, 2, "active", "demoted", "bad"), move(TOOL, 1, "superseded", "active", "back")])
    assert call(loader).value == 1
    loader.refresh([move(TOOL, 1, "active", "retired", "unused")])
    with pytest.raises(NoTool):
        call(loader)


BAD = [
    ("its text is not the one", {"source_sha256": "sha256:00"}),
    ("it needs the capability 'files.remove'", {"capabilities": ["files.remove"]}),
    ("os cannot be imported", {"body": "import os\n\n\ndef run(n: int) -> int:\n    return n\n"}),
    ("it cannot be imported", {"body": "X = 1 / 0\n\n\ndef run(n: int) -> int:\n    return n\n"}),
    ("no function 'other'", {"entry": "other"}),
    ("guard new x", {"guards": [Guard(kind="new", subject="x")]}),
]


@pytest.mark.parametrize(("why", "changes"), BAD, ids=[why for why, _ in BAD])
def test_a_version_that_cannot_be_loaded_leaves_the_one_before_in_place(
    why: str, changes: dict[str, Any], sandbox: Sandbox
) -> None:
    loader = loader_of([version(1, "return 1"), *promoted(1)], sandbox)
    done = loader.refresh([version(2, **changes), *promoted(2, over=1)])
    assert why in done.kept[TOOL]
    assert "\n" not in done.kept[TOOL]
    assert call(loader).value == 1
    alone = loader_of([version(1, **changes), *promoted(1)], sandbox)
    assert why in alone.boot.refused[TOOL]
    with pytest.raises(NoTool):
        call(alone)


def test_a_version_that_was_demoted_does_not_stay_because_another_cannot_be_loaded(sandbox: Sandbox) -> None:
    bad = version(1, source_sha256="sha256:00")
    loader = loader_of([bad, *promoted(1), version(2, "return 2"), *promoted(2, over=1)], sandbox)
    assert call(loader).value == 2
    back = [move(TOOL, 2, "active", "demoted", "bad"), move(TOOL, 1, "superseded", "active", "back")]
    assert TOOL in loader.refresh(back).refused
    with pytest.raises(NoTool):
        call(loader)


def test_a_capability_whose_effect_has_changed_is_not_the_one_that_was_proven(sandbox: Sandbox) -> None:
    made = version(1, "return ask(n)", capabilities=["ask"], effects=["read"])
    reads = Capabilities(tools={"ask": Declared(lambda n: n, "read")})
    writes = Capabilities(tools={"ask": Declared(lambda n: n, "write")})
    assert loader_of([made, *promoted(1)], sandbox, reads).boot.loaded == ((TOOL, 1),)
    assert "proven with another effect" in loader_of([made, *promoted(1)], sandbox, writes).boot.refused[TOOL]


def test_a_call_in_flight_ends_on_the_version_that_it_began_with(sandbox: Sandbox) -> None:
    entered, go = threading.Event(), threading.Event()

    def wait(n: int) -> int:
        entered.set()
        assert go.wait(20)
        return n

    slow = Capabilities(tools={"wait": Declared(wait, "read")})
    first = version(1, "return wait(n) * 10", capabilities=["wait"], effects=["read"])
    with Sandbox(
        msgspec.structs.replace(sandbox.limits, wall_seconds=30.0, capability_seconds=30.0), pool=1
    ) as patient:
        loader = loader_of([first, *promoted(1)], patient, slow)
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(call(loader)))
        thread.start()
        assert entered.wait(20)
        loader.refresh([version(2, "return -n"), *promoted(2, over=1)])
        assert call(loader).value == -3
        go.set()
        thread.join(20)
    assert (found[0].number, found[0].value) == (1, 30)


def test_a_guard_is_checked_before_anything_is_run_and_a_miss_is_counted(sandbox: Sandbox) -> None:
    acted: list[int] = []
    caps = Capabilities(tools={"act": Declared(acted.append, "write")})
    guards = [*INT, Guard(kind="precondition", subject="n", expected={"maximum": 9}),
              Guard(kind="environment", subject="python", expected="3.11")]  # fmt: skip
    made = version(1, "act(n)\n    return n", capabilities=["act"], effects=["write"], guards=guards)
    loader = loader_of([made, *promoted(1)], sandbox, caps)
    misses: list[CrystalInvoked] = []
    for n, environment, name in ((10, HERE, "precondition n"), ("x", HERE, "type n"), (1, {}, "environment python")):
        with pytest.raises(GuardMissed) as missed:
            loader.call(FAMILY, {"n": n}, "r", environment)
        assert missed.value.name == name == missed.value.invoked.guard
        assert missed.value.uses == ()
        misses.append(missed.value.invoked)
    assert acted == []
    assert call(loader, 4).ok
    assert acted == [4]
    loader.refresh(misses)
    one = loader.registry.version(TOOL, 1)
    assert one is not None
    assert (one.calls, one.missed, one.misses["type n"]) == (0, 3, 1)


def test_a_changed_world_stops_the_tool_before_it_acts_even_where_it_catches_the_error(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "rate").write_text("0.2")
    caps = Capabilities(files=Workspace(tmp_path, write=True))
    source = """def run(n: int) -> int:
    try:
        files.read_text("rate")
    except ToolError:
        pass
    files.write_text("out", str(n))
    return n
"""
    world = Guard(kind="world", subject="files.read_text", expected={"site": "*", "result_sha256": value_sha256("0.2")})
    made = version(
        1, source, capabilities=["files.read_text", "files.write_text"], effects=["read", "write"], guards=[*INT, world]
    )
    loader = loader_of([made, *promoted(1)], sandbox, caps)
    assert call(loader).ok
    assert (tmp_path / "out").read_text() == "3"
    (tmp_path / "rate").write_text("0.3")
    with pytest.raises(GuardMissed) as missed:
        call(loader, 5)
    assert missed.value.name == "world files.read_text"
    assert [use.name for use in missed.value.uses] == ["files.read_text"]
    assert (tmp_path / "out").read_text() == "3"


def test_what_a_tool_leaves_unread_is_read_before_the_call(sandbox: Sandbox, tmp_path: Path) -> None:
    caps = Capabilities(files=Workspace(tmp_path, write=True))
    asked = {"site": "*", "ask": '{"path": "lock"}', "result_sha256": value_sha256(False), "shown": "False"}
    guards = [*INT, Guard(kind="world", subject="files.exists", expected=asked)]
    loader = loader_of([version(1, "return n", guards=guards), *promoted(1)], sandbox, caps)
    called = call(loader)
    assert called.ok
    assert [(use.name, use.result) for use in called.uses] == [("files.exists", False)]
    (tmp_path / "lock").write_text("")
    with pytest.raises(GuardMissed):
        call(loader)


def test_what_a_tool_raises_or_is_ended_for_is_told_with_what_it_did_before(sandbox: Sandbox) -> None:
    done: list[int] = []
    caps = Capabilities(tools={"act": Declared(done.append, "write")})
    body = 'act(n)\n    if n == 1:\n        raise ValueError("no")\n    while n == 2:\n        pass\n    return "text"'
    made = version(1, body, capabilities=["act"], effects=["write"])
    loader = loader_of([made, *promoted(1)], sandbox, caps)
    raised, endless, wrong = (call(loader, n) for n in (1, 2, 3))
    assert (raised.ok, raised.error) == (False, "ValueError: no (line 4)")
    assert not endless.ok
    assert endless.outcome.killed_by in {"cpu", "wall"}
    assert (wrong.ok, wrong.value, wrong.error) == (False, None, "it gave str, and says int")
    assert [[use.args for use in one.uses] for one in (raised, endless, wrong)] == [[{"object": n}] for n in (1, 2, 3)]
    assert done == [1, 2, 3]
    assert not raised.invoked.ok
    assert raised.invoked.error == raised.error


def test_capabilities_of_a_call_take_the_place_of_the_loaders(sandbox: Sandbox) -> None:
    made = version(1, "return ask(n)", capabilities=["ask"], effects=["read"])
    loader = loader_of([made, *promoted(1)], sandbox, Capabilities(tools={"ask": Declared(lambda n: n, "read")}))
    assert call(loader).value == 3
    assert call(loader, capabilities=Capabilities(tools={"ask": Declared(lambda n: n * 7, "read")})).value == 21
    with pytest.raises(NoTool, match="'ask'"):
        call(loader, capabilities=Capabilities())


def test_the_version_in_waiting_runs_on_a_tape_and_never_acts(sandbox: Sandbox) -> None:
    acted: list[int] = []
    caps = Capabilities(tools={"act": Declared(acted.append, "write")})
    made = version(1, "act(n)\n    return n * 2", capabilities=["act"], effects=["write"])
    loader = loader_of([made], sandbox, caps)

    def beside(n: Any, output: Any, *uses: Use) -> Any:
        return loader.shadow(FAMILY, {"n": n}, "r", HERE, steps=uses, output=output, served_ns=7)

    agreed = beside(4, 8, Use(name="act", args={"object": 4}, effect="write"))
    assert agreed is not None
    assert agreed.agreed, agreed.reason
    assert (agreed.number, agreed.served_ns) == (1, 7)
    assert acted == []
    assert not beside(4, 8).agreed  # the live mode did not act
    assert not beside(4, 9, Use(name="act", args={"object": 4}, effect="write")).agreed
    assert beside("x", 8) is None  # its guards do not hold: no trial
    loader.refresh([*promoted(1)])
    assert beside(4, 8) is None


def test_where_keys_are_set_only_what_they_signed_is_loaded(sandbox: Sandbox) -> None:
    pytest.importorskip("cryptography")
    from morphogen.consumers.crystallizer import signed
    from morphogen.kernels.blueprints import new_key, public_key

    key = new_key()
    made = signed(version(1, "return 1"), key)
    trusted = [public_key(key)]
    assert call(loader_of([made, *promoted(1)], sandbox, trusted=trusted)).value == 1
    for wrong in (version(1), signed(version(1), new_key()), msgspec.structs.replace(made, guards=[])):
        assert TOOL in loader_of([wrong, *promoted(1)], sandbox, trusted=trusted).boot.refused
    loader = loader_of([made, *promoted(1)], sandbox, trusted=trusted)
    assert "not signed" in loader.refresh([version(2, "return 2"), *promoted(2, over=1)]).kept[TOOL]
    assert call(loader).value == 1


def test_a_value_that_no_tool_can_be_given_is_a_guard_missed(sandbox: Sandbox) -> None:
    loader = loader_of([version(1, guards=[Guard(kind="type", subject="n", expected="Any")]), *promoted(1)], sandbox)
    for value in (object(), 1 << 80):
        with pytest.raises(GuardMissed):
            call(loader, value)


@dataclass
class Row:
    size: int


VALUES: list[tuple[Any, str, Any]] = [
    (lambda: Row(7), 'return shop.get()["size"]', 7),
    (lambda: {7}, "return shop.get()[0]", 7),
    (lambda: np.int64(7), "return shop.get()", 7),
    (lambda: {"v": np.float32(7.0)}, 'return int(shop.get()["v"])', 7),
    (lambda: Path("a/7"), "return int(shop.get()[2:])", 7),
    (lambda: {None: 7, 0.5: 1}, 'return shop.get()["None"]', 7),
    (lambda: "\ud83d", "return len(shop.get())", 1),
]


@pytest.mark.parametrize(("function", "body", "value"), VALUES, ids=[body for _, body, _ in VALUES])
def test_a_tool_is_given_what_a_recording_would_hold(function: Any, body: str, value: int, sandbox: Sandbox) -> None:
    given = Capabilities(tools={"shop.get": Declared(function, "read")})
    made = version(1, body, capabilities=["shop.get"], effects=["read"])
    loader = loader_of([made, *promoted(1)], sandbox, given)
    called = call(loader)
    assert (called.value, called.error) == (value, None)
    assert value_sha256(called.uses[0].result)
    beside = loader_of([made], sandbox, given)
    shadowed = beside.shadow(FAMILY, {"n": 3}, "r", HERE, steps=called.uses, output=np.int64(value))
    assert shadowed is not None
    assert (shadowed.agreed, shadowed.reason) == (True, "")


@pytest.mark.parametrize("text", ['{"unit": "\\ud83d"}', '{"unit": 1%s}' % ("0" * 30), '{"unit":' + "[" * 100_000])
def test_no_content_of_a_file_takes_a_call_down(text: str, sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    guard = Guard(
        kind="world", subject="files.read_text",
        expected={"site": "*", "path": ["unit"], "value_sha256": value_sha256("ms")},
    )  # fmt: skip
    made = version(
        1, 'return len(files.read_text("a.json"))', capabilities=["files.read_text"], effects=["read"],
        guards=[*INT, guard],
    )  # fmt: skip
    loader = loader_of([made, *promoted(1)], sandbox, Capabilities(files=Workspace(tmp_path)))
    with pytest.raises(GuardMissed, match=r"files\.read_text gives|for unit"):
        call(loader)


def test_a_default_that_is_no_value_is_recorded_as_one(sandbox: Sandbox) -> None:
    def get(name: str, root: Path = Path("a")) -> str:
        return f"{root.name}/{name}"

    given = Capabilities(tools={"shop.get": Declared(get, "read")})
    made = version(1, 'return len(shop.get(name="b"))', capabilities=["shop.get"], effects=["read"])
    called = call(loader_of([made, *promoted(1)], sandbox, given))
    assert (called.value, called.uses[0].args) == (3, {"name": "b", "root": "a"})
    shadowed = loader_of([made], sandbox, given).shadow(
        FAMILY,
        {"n": 3},
        "r",
        HERE,
        steps=[Use(name="shop.get", args={"name": "b"}, effect="read", result="a/b")],
        output=3,
    )
    assert shadowed is not None
    assert (shadowed.agreed, shadowed.reason) == (True, "")
