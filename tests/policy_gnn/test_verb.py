"""`morphogen policy`: trained from the log or by an environment, recorded, shown."""

import json
from pathlib import Path

import pytest

from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.cli.app import run as morphogen
from morphogen.consumers.policy import load_policy
from morphogen.consumers.policy.gnn import Learned
from morphogen.producers import record
from morphogen.schemas import PolicyUpdated

from .garden import Garden

ENVIRONMENT = """
from morphogen.consumers.policy import Policy

def play(policy: Policy, number: int) -> None:
    assert policy.name == "gnn-ppo"
    print("playing", number)
"""


WORLDS = """
import sys

def fails(policy, number):
    raise RuntimeError("no world\\nat all")

def ends(policy, number):
    sys.exit(3)

def speaks(policy, number):
    return "x"

def nothing(policy, number):
    return float("nan")
"""


def updates(settings: Settings, run: str) -> list[PolicyUpdated]:
    """What the log says of a training."""
    with Bus.open(settings) as bus:
        return [seen.event for seen in bus.events(run=run, family=["policy"]) if isinstance(seen.event, PolicyUpdated)]


def test_recorded_runs_of_any_policy_teach_it(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("garden-random", "garden-gnn"):
        policy = load_policy("random", 1) if name == "garden-random" else Learned(1, explore=True)
        garden = Garden(epochs=20)
        garden.play(policy, 1)
        with record(name, settings=settings) as run:
            for event in garden.events:
                run.event(event)
    out = tmp_path / "p.safetensors"

    assert morphogen(["policy", "train", "--runs", "garden-*", "--out", str(out), "--name", "school"]) == 0
    assert "experiences" in capsys.readouterr().out
    told = updates(settings, "school")
    version = load_policy(str(out)).version
    assert [event.policy_version for event in told] == [version]
    assert told[0].samples > 0
    assert told[0].measured["on_policy"] == 0  # others decided
    assert morphogen(["policy", "show", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["version"] == version
    assert shown["schooling"]["experiences"] == told[0].experiences
    assert morphogen(["policy", "show", str(out)]) == 0
    assert "weights" in capsys.readouterr().out


def test_an_environment_lets_it_decide(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_world.py").write_text(ENVIRONMENT)
    monkeypatch.chdir(tmp_path)
    line = ["policy", "train", "--environment", "my_world:play", "--episodes", "2", "--first", "5", "--name", "school"]

    assert morphogen(line) == 0
    assert "playing 5\n" in capsys.readouterr().out
    assert len(updates(settings, "school")) == 2
    assert (tmp_path / "policy.safetensors").exists()


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (["train", "--runs", "nothing-*"], 1, "no run"),
        (["train", "--environment", "nowhere:play"], 1, "cannot be imported"),
        (["train", "--environment", "json:__name__"], 1, "is no function"),
        (["train", "--environment", "json:loads", "--runs", "a"], 2, "choose one"),
        (["train", "--from", "missing.safetensors"], 1, "No such file"),
        (["show", "missing.safetensors"], 1, "No such file"),
        (["train", "--environment", "json:loads", "--seed", "-1"], 2, "--seed"),
        (["train", "--environment", "json:loads", "--out", "."], 2, "--out"),
        (["train", "--environment", "os:getcwd"], 1, "environment 'os:getcwd' failed in episode 0: TypeError"),
        (["train", "--environment", "worlds:fails"], 1, "failed in episode 0: RuntimeError: no world"),
        (["train", "--environment", "worlds:ends"], 1, "failed in episode 0: SystemExit: 3"),
        (["train", "--environment", "worlds:speaks"], 1, "a finite number, or None, not 'x'"),
        (["train", "--environment", "worlds:nothing"], 1, "a finite number, or None, not nan"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    settings: Settings,
    line: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "worlds.py").write_text(WORLDS)
    monkeypatch.chdir(tmp_path)
    assert morphogen(["policy", *line]) == code
    error = capsys.readouterr().err
    assert said in error
    if code == 1:
        assert error.count("\n") == 1
