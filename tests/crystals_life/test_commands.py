"""`morphogen crystals ...` and `morphogen serve crystallizer` over a real log."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from morphogen.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.cli.app import run
from morphogen.consumers.crystallizer.packages import Package, pack, unpack
from morphogen.consumers.crystallizer.worker import Crystallizer
from morphogen.kernels.blueprints.signing import new_key, public_key
from morphogen.kernels.sandbox import Sandbox
from morphogen.schemas import CrystalMoved, CrystalShadowed
from morphogen.schemas.crystals import Parameter

from .kit import FENCED, GOAL, GOOD, OUTSIDE, SIGNATURE, TEMPLATE, TOOL, making, record


@pytest.fixture(autouse=True)
def _needs(sandbox: Sandbox) -> None:
    """Skip where no tool can be run."""


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        found = run(arguments)
        out, err = self._capsys.readouterr()
        assert found == code, out + err
        return out + err


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


def script(tmp_path: Path, *texts: str, name: str = "replies.json") -> list[str]:
    path = tmp_path / name
    path.write_text(json.dumps({"reply": [{"text": text, "call": at + 1} for at, text in enumerate(texts)]}))
    return ["--backend", "script", "-o", f"file={path}"]


def shadow(bus: Bus, number: int, count: int = 8) -> None:
    for at in range(count):
        event = CrystalShadowed(tool=TOOL, number=number, request=f"r{at}", agreed=True)
        bus.emit(event, msg_id=f"shadow.{number}.{at}")


def test_a_tool_from_its_first_candidate_to_its_end(
    bus: Bus, settings: Settings, say: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no tools yet" in say("crystals", "list")
    assert "no candidates" in say("crystals", "list", "--candidates")
    record(settings, range(12))
    (candidate,) = rows(say("crystals", "list", "--candidates", "--json"))
    assert (candidate["signature"], candidate["uses"], candidate["success"]) == (SIGNATURE, 12, 1.0)
    assert candidate["priority"] == pytest.approx(12 * 10 * 0.5 + 0.04 * 100 * 0.3 + 100 * 0.2, abs=1e-3)
    assert SIGNATURE in say("crystals", "list", "--candidates")

    assert "no tool" in say("crystals", "make", SIGNATURE, "--model", *script(tmp_path, OUTSIDE, OUTSIDE), code=1)
    (failed,) = rows(say("crystals", "list", "--failed", "--json"))
    assert (failed["stage"], failed["cost_microusd"]) == ("grammar", 0)
    assert "import os" in say("crystals", "show", failed["attempt"])

    record(settings, range(12, 18))
    made = json.loads(say("crystals", "make", GOAL, "--model", "--json", *script(tmp_path, FENCED.format(GOOD))))
    assert (made["tool"], made["version"], made["cost_microusd"]) == (TOOL, 1, 0)
    (row,) = rows(say("crystals", "list", "--json"))
    assert (row["tool"], row["state"], row["goal"]) == (TOOL, "shadow", TEMPLATE)
    assert "is not promoted: it has 0 shadow runs" in say("crystals", "promote", TOOL, code=1)
    shadow(bus, 1)
    assert "shadow -> active" in say("crystals", "promote", TOOL[:9])
    shown = say("crystals", "show", TOOL)
    for part in ("state          active", "8 of 8 agreed", "replay: passed", "type count:", GOOD):
        assert part in shown
    assert say("crystals", "show", TOOL, "--source") == GOOD
    document = json.loads(say("crystals", "show", SIGNATURE, "--json"))
    assert (document["version"], document["source"]) == (1, GOOD)

    monkeypatch.chdir(tmp_path)
    key = new_key()
    (tmp_path / "key").write_text(key.hex())
    assert "signed" in say("crystals", "export", TOOL, "--key", "key")
    package = f"{TOOL}-v1.crystal"
    assert public_key(key) in say("crystals", "show", package)
    assert "unsigned" in say("crystals", "export", f"{TOOL}@1", "-o", "plain.crystal")
    told = json.loads(say("crystals", "export", TOOL, "-o", "plain.crystal", "--json"))
    assert (told["tool"], told["version"], told["file"], told["signed"]) == (TOOL, 1, "plain.crystal", False)
    assert told["bytes"] == (tmp_path / "plain.crystal").stat().st_size
    assert "keys are set" in say("crystals", "import", "plain.crystal", "--trust", public_key(key), code=1)

    record(settings, range(18, 24), wrong=1)
    assert "replay" in say("crystals", "import", package, "--trust", public_key(key), code=1)
    assert "demoted" in say("crystals", "demote", TOOL, "--reason", "the shop takes a fee")
    assert "for good" in say("crystals", "retire", TOOL) + say("crystals", "promote", f"{TOOL}@1", "--anyway", code=1)
    assert "no tools yet" in say("crystals", "list")
    (row,) = rows(say("crystals", "list", "--all", "--json"))
    assert row["state"] == "retired"
    assert "differs" not in say("verify")  # the tables fold the same past to the same state


def test_two_versions_are_compared_and_rolled_back(bus: Bus, settings: Settings, say: Said, tmp_path: Path) -> None:
    record(settings, range(12))
    say("crystals", "make", SIGNATURE, "--model", *script(tmp_path, GOOD))
    say("crystals", "promote", TOOL, "--anyway")
    assert "no version to go back to" in say("crystals", "rollback", TOOL, code=1)
    assert "no other version" in say("crystals", "diff", TOOL, code=1)
    record(settings, range(12, 18))
    other = GOOD.replace('price["cents"] * count', 'count * price["cents"]')
    say("crystals", "make", SIGNATURE, "--model", *script(tmp_path, other))
    moves = rows(say("crystals", "promote", TOOL, "--anyway", "--json"))
    assert [(one["version"], one["now"]) for one in moves] == [(1, "superseded"), (2, "active")]
    changed = say("crystals", "diff", TOOL)
    assert '-    return {"item": item, "cents": price["cents"] * count}' in changed
    assert json.loads(say("crystals", "diff", TOOL, "1", "2", "--json"))["text"]
    moves = rows(say("crystals", "rollback", TOOL, "--json"))
    assert [(one["version"], one["now"]) for one in moves] == [(2, "demoted"), (1, "active")]
    assert "demoted -> shadow" in say("crystals", "promote", f"{TOOL}@2")


def test_the_background_does_all_of_it_once(bus: Bus, settings: Settings, say: Said, tmp_path: Path) -> None:
    record(settings, range(12))
    once = ("serve", "crystallizer", "--once", "--budget", "0.01")
    assert f"{TOOL} by" in say(*once, *script(tmp_path, GOOD))
    assert say(*once, *script(tmp_path, GOOD)) == ""
    (row,) = rows(say("crystals", "list", "--json"))
    shadow(bus, row["version"])
    assert "shadow -> active" in say(*once)


def test_a_tool_is_changed_by_its_name_alone(
    bus: Bus, settings: Settings, say: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(settings, range(12))
    say("crystals", "make", SIGNATURE, "--model", *script(tmp_path, GOOD))
    say("crystals", "promote", TOOL, "--anyway")
    for key in ("garbage", "", "g", "tool_", "g1-", "@1"):
        for verb in ("retire", "demote", "show"):
            assert "no tool" in say("crystals", verb, key, code=1)
    assert "is short for what changes a tool" in say("crystals", "retire", TOOL[:6], code=1)
    assert TOOL in say("crystals", "show", TOOL[:6])
    assert "leave out @1" in say("crystals", "rollback", f"{TOOL}@1", code=1)
    assert "leave out @1" in say("crystals", "diff", f"{TOOL}@1", code=1)
    with monkeypatch.context() as late:
        late.setattr(Crystallizer, "move", lambda *_: False)
        assert "another process moved a version meanwhile" in say("crystals", "demote", TOOL, code=1)
    say("crystals", "demote", SIGNATURE)
    again = say("crystals", "make", SIGNATURE, "--model", *script(tmp_path, GOOD))
    assert f"{TOOL} version 1 is already registered" in again
    assert "it is demoted" in again


def test_a_version_that_another_process_brought_back_meanwhile_is_not_told_to_be_replaced(
    bus: Bus, settings: Settings, say: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(settings, range(12))
    say("crystals", "make", SIGNATURE, "--model", *script(tmp_path, GOOD))
    say("crystals", "promote", TOOL, "--anyway")
    record(settings, range(12, 30))
    say("crystals", "make", SIGNATURE, "--model", *script(tmp_path, GOOD, name="anew.json"))
    move = Crystallizer.move

    def beside(self: Crystallizer, moved: CrystalMoved) -> bool:
        """Decide as a service does that looks at the log between two moves of a person."""
        if moved.now == "active":
            bus.emit(CrystalMoved(tool=TOOL, number=1, was="superseded", now="active", reason="back"), msg_id="beside")
        return move(self, moved)

    monkeypatch.setattr(Crystallizer, "move", beside)
    assert f"{TOOL} version 2 is not active" in say("crystals", "promote", f"{TOOL}@2", "--anyway", code=1)


def test_a_package_is_written_whole_and_taken_from_whom_is_trusted(
    bus: Bus, settings: Settings, say: Said, tmp_path: Path
) -> None:
    record(settings, range(12))
    say("crystals", "make", SIGNATURE, "--model", *script(tmp_path, GOOD))
    key = new_key()
    (tmp_path / "key").write_text(key.hex())
    path = tmp_path / "a.crystal"
    path.write_bytes(b"before")
    (tmp_path / "link").symlink_to(path)
    say("crystals", "export", TOOL, "--key", str(tmp_path / "key"), "-o", str(tmp_path / "link"))
    assert unpack(path.read_bytes()).signer == public_key(key)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.crystal", "key", "link", "replies.json"]
    limited = subprocess.run(
        ["bash", "-c", f'ulimit -f 1; exec "$0" -m morphogen.cli crystals export {TOOL} -o {path}', sys.executable],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (limited.returncode, limited.stderr) == (1, f"morphogen: File too large: {path}\n")
    assert unpack(path.read_bytes()).signer == public_key(key)
    assert len(list(tmp_path.iterdir())) == 4
    assert "is registered by llm" in say("crystals", "import", str(path), "--trust", public_key(key).upper())
    (settings.home / "do.toml").write_text("trusted = []\n")
    assert "no key is trusted here" in say("crystals", "import", str(path), code=1)


def test_what_a_package_says_never_commands_a_terminal(settings: Settings, say: Said, tmp_path: Path) -> None:
    there = making()
    name = "na\x1b[2Jme\nsigned         a-trusted-key"
    there["registered"] = msgspec.structs.replace(
        there["registered"], returns="\x1b[31mint", params=[Parameter(name=name, type="str\nsigned")]
    )
    path = tmp_path / "a.crystal"
    path.write_bytes(pack(Package(**there)))
    shown = say("crystals", "show", str(path))
    assert "\x1b" not in shown
    assert [line for line in shown.splitlines() if line.startswith("signed")] == ["signed         by nobody"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--every", "inf"), ("--every", "1e12"), ("--every", "nan"), ("--retire-days", "inf"), ("--lower", "nan")],
)
def test_a_service_takes_no_time_without_an_end(settings: Settings, say: Said, option: str, value: str) -> None:
    assert option in say("serve", "crystallizer", "--once", option, value, code=2)


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (["make", "g1-deadbeefdeadbeef"], "nothing was ever recorded for g1-deadbeefdeadbeef", 1),
        (["show", "tool_nothing"], "no tool 'tool_nothing'", 1),
        (["make", SIGNATURE], "nothing was ever recorded", 1),
        (["make", SIGNATURE, "--model"], "--model needs a --backend", 2),
        (["list", "--candidates", "--failed"], "choose one", 2),
        (["import", "nowhere.crystal"], "No such file", 1),
        (["make", SIGNATURE, "--budget", "much"], "takes dollars", 1),
    ],
)
def test_what_cannot_be_done_is_one_line(
    lasting: Settings, at_lasting: Settings, say: Said, arguments: list[str], said: str, code: int
) -> None:
    assert said in say("crystals", *arguments, code=code)


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_service_follows_the_log_and_a_kill_repeats_nothing(bus: Bus, settings: Settings, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "morphogen.cli",
        "serve",
        "crystallizer",
        "--every",
        "0.2",
        *script(tmp_path, GOOD),
    ]

    def until(process: "subprocess.Popen[str]", said: str) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if said in line:
                return
        pytest.fail(f"it ended without {said!r}")

    def ids() -> list[str]:
        return [seen.id for seen in bus.events(family="crystal")]

    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        until(first, "at work")
        record(settings, range(12))
        until(first, "version 1 in shadow")
        first.kill()
    before = ids()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second:
        until(second, "at work")
        shadow(bus, 1)
        until(second, "shadow -> active")
        second.terminate()
        assert second.wait(20) == 0
    after = ids()
    assert after[: len(before)] == before
    kinds = [seen.record.type for seen in bus.events(family="crystal")][len(before) :]
    assert kinds == ["crystal.shadowed"] * 8 + ["crystal.checked", "crystal.checked", "crystal.moved"]
