"""Checkpoints, and policies by name, by file and by class."""

import json
import math
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.policy import (
    CheckpointError,
    Outcome,
    PolicyError,
    load_checkpoint,
    load_policy,
    save_checkpoint,
    save_policy,
)
from morphogen.consumers.policy.identity import name_of, version_of
from morphogen.consumers.policy.policies import Bandit, Heuristic
from morphogen.schemas import Action


def _taught() -> Bandit:
    policy = Bandit(0)
    for reward in (0.25, 0.5):
        policy.learn(Outcome("d", 3, "o", 1, Action(op="germinate", slot="fc.1#0", blueprint="mlp16"), reward=reward))
    return policy


def test_a_bandit_comes_back_from_its_checkpoint_and_neither_explores_nor_learns(tmp_path: Path) -> None:
    version = save_policy(_taught(), tmp_path / "new" / "bandit.safetensors")

    back = load_policy(tmp_path / "new" / "bandit.safetensors", seed=3)

    assert isinstance(back, Bandit)
    assert (back.state(), back.version, back.seed) == (_taught().state(), version, 3)
    back.learn(Outcome("d", 3, "o", 1, Action(op="germinate", slot="a#0", blueprint="x"), reward=1.0))
    assert back.state() == _taught().state()
    going_on = load_policy(str(tmp_path / "new" / "bandit.safetensors"), explore=1.0, keep_learning=True)
    going_on.learn(Outcome("d", 3, "o", 1, Action(op="germinate", slot="a#0", blueprint="x"), reward=1.0))
    assert going_on.experiences == 3  # type: ignore[attr-defined]


def test_equal_policies_make_equal_bytes(tmp_path: Path) -> None:
    one, other = save_policy(_taught(), tmp_path / "a"), save_policy(_taught(), tmp_path / "b")

    assert one == other
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_tensors_come_back_with_their_bits_and_types(tmp_path: Path) -> None:
    tensors = {"w": np.arange(6, dtype=np.float32).reshape(2, 3) / 7, "n": np.array([1, 2], np.int64)}
    version = save_checkpoint(tmp_path / "c", "mine", {"k": [1, None]}, tensors)

    found = load_checkpoint(tmp_path / "c")

    assert (found.policy, found.state, found.version) == ("mine", {"k": [1, None]}, version)
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert found.tensors[name].tobytes() == tensor.tobytes()


@given(st.data())
def test_a_damaged_or_foreign_file_is_told_in_one_line(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    save_policy(_taught(), path)
    whole = path.read_bytes()
    kind = data.draw(st.sampled_from(["cut", "flip", "foreign"]))
    if kind == "cut":
        broken = whole[: data.draw(st.integers(0, len(whole) - 1))]
    elif kind == "flip":
        at = data.draw(st.integers(0, len(whole) - 1))
        broken = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
    else:
        broken = data.draw(st.binary(max_size=200))
    path.write_bytes(broken)

    try:
        load_policy(path)  # a flipped digit of a number may still be a number
    except PolicyError as error:
        assert "\n" not in str(error)  # noqa: PT017  not every damage is an error


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(CheckpointError, match="not a policy's checkpoint"):
        load_checkpoint(tmp_path / "huge")
    with pytest.raises(CheckpointError, match="No such file"):
        load_checkpoint(tmp_path / "gone.safetensors")
    header = json.dumps({"__metadata__": {"morphogen.policy": '{"format": 9, "policy": "x", "state": {}}'}}).encode()
    (tmp_path / "newer").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError, match="format 9"):
        load_checkpoint(tmp_path / "newer")


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"arms": 3},
        {"arms": {"a": [1]}},
        {"arms": {"a": [-1, 0, 0]}, "low": None, "high": None},
        {"arms": {"a": [1, "x", 0]}},
        {"arms": {"a": [10**400, 0, 0]}, "low": None, "high": None},
        {"arms": {"a": [1, 10**400, 0]}, "low": None, "high": None},
        {"arms": {}, "low": 10**400, "high": None},
        {"arms": {}, "low": None, "high": math.inf},
    ],
)
def test_a_state_that_does_not_fit_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="no state of a bandit"):
        Bandit.restored(state)


def test_a_refused_state_is_told_with_its_file(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "b.safetensors", "bandit", {"arms": 3})

    with pytest.raises(CheckpointError, match=r"b\.safetensors: no state of a bandit"):
        load_policy(tmp_path / "b.safetensors")


def test_options_that_a_checkpoint_does_not_take_are_refused(tmp_path: Path) -> None:
    save_policy(_taught(), tmp_path / "b.safetensors")

    for options in ({"boldness": 1}, {"version": "mine"}, {"arms": {}}, {"keep_learning": "no"}):
        with pytest.raises(PolicyError, match="policy bandit"):
            load_policy(tmp_path / "b.safetensors", **options)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path / "pipe.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="not a file"):
            load_checkpoint(path)


def test_a_name_that_no_file_can_have_is_refused_in_one_line() -> None:
    with pytest.raises(CheckpointError, match="File name too long"):
        save_policy(_taught(), "x" * 300)


@pytest.mark.parametrize("path", [".", "", "/", ".."])
def test_a_folder_is_no_checkpoint_to_write(path: str) -> None:
    with pytest.raises(CheckpointError, match="a folder"):
        save_policy(_taught(), path)


def test_a_pipe_is_no_checkpoint_to_write(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a file"):
        save_policy(_taught(), str(tmp_path / "pipe"))
    assert (tmp_path / "pipe").is_fifo()


def test_a_state_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    for state in ({"x": float("nan")}, {"x": object()}):
        with pytest.raises(CheckpointError, match="cannot be written"):
            save_checkpoint(tmp_path / "c", "mine", state)


MINE = """
class Mine:
    name = "mine"
    version = None
    def __init__(self, seed=0, boldness=1):
        self.seed, self.boldness = seed, boldness
    def decide(self, observation): ...
    def learn(self, outcome): ...

class Seedless(Mine):
    def __init__(self):
        super().__init__(seed=-1)

class Half:
    name = "half"

class Broken:
    def __init__(self, seed):
        raise ValueError("no\\nway")
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_policies.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_policies", raising=False)
    return "my_policies"


def test_a_class_of_ones_own_is_a_policy(mine: str) -> None:
    policy = load_policy(f"{mine}:Mine", seed=4, boldness=2)

    assert (policy.name, policy.seed, policy.boldness) == ("mine", 4, 2)  # type: ignore[attr-defined]
    assert load_policy(f"{mine}:Seedless").seed == -1  # type: ignore[attr-defined]
    assert load_policy(type(policy), seed=5).seed == 5  # type: ignore[attr-defined]
    assert load_policy(policy) is policy


def test_what_is_no_policy_is_told_in_one_line(mine: str) -> None:
    for asked, reason in (
        ("clever", "there is no policy 'clever': one of none, random"),
        (f"{mine}:Half", "lacks version, decide, learn"),
        (f"{mine}:Gone", "cannot be imported"),
        ("no.such.module:X", "cannot be imported"),
        (f"{mine}:Broken", "cannot be made: no"),
        (object(), "lacks name"),
    ):
        with pytest.raises(PolicyError, match=reason) as told:
            load_policy(asked)
        assert "\n" not in str(told.value)
    with pytest.raises(PolicyError, match="cannot be made"):
        load_policy("none", boldness=1)
    with pytest.raises(PolicyError, match="learns nothing"):
        save_policy(Heuristic(), "x")


def test_a_checkpoint_of_an_unknown_policy_is_told(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", "mystery", {})

    with pytest.raises(PolicyError, match="'mystery'"):
        load_policy(tmp_path / "c")


def test_a_class_that_fails_as_it_is_made_or_named_is_told_in_one_line() -> None:
    class Fails:
        version = None

        def __init__(self, how: type[BaseException]) -> None:
            raise how("two\nlines")

    class Nameless:
        version = None

        @property
        def name(self) -> str:
            raise RuntimeError("two\nlines")

    for how in (RuntimeError, KeyError, SystemExit, MemoryError):
        with pytest.raises(PolicyError, match=f"cannot be made: {how.__name__}: ") as told:
            load_policy(Fails, how=how)
        assert "\n" not in str(told.value)
    with pytest.raises(PolicyError, match=r"Nameless is no policy: RuntimeError: two$"):
        load_policy(Nameless())


@pytest.mark.parametrize("explore", ["abc", -1, math.nan, True])
def test_a_bandit_that_explores_by_no_number_is_refused(explore: Any) -> None:
    with pytest.raises(PolicyError, match="explore is 0 or more"):
        load_policy("bandit", explore=explore)


@pytest.mark.parametrize("seed", ["x", -1, 1 << 63, True, None])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(PolicyError, match="a policy's seed is a whole number"):
        load_policy("random", seed=seed)


def test_a_seed_of_numpy_is_as_good_as_one_of_python() -> None:
    assert type(load_policy("bandit", seed=np.int64(3)).seed) is int  # type: ignore[attr-defined, arg-type]


@pytest.mark.parametrize(
    ("name", "option"),
    [("heuristic", "wait_for_plateau"), ("bandit", "keep_learning"), ("bandit", "wait_for_plateau"), ("fixed", "judge"),
     ("gnn-ppo", "explore")],
)  # fmt: skip
def test_an_option_of_yes_or_no_is_refused_as_a_word(name: str, option: str) -> None:
    with pytest.raises(PolicyError, match=f"policy {name}: {option} is true or false, not 'no'"):
        load_policy(name, **{option: "no"})


class Told:
    """A policy of this name and version."""

    def __init__(self, name: Any, version: Any) -> None:
        self.name, self.version = name, version

    def decide(self, observation: Any) -> Any: ...

    def learn(self, outcome: Any) -> None: ...


def test_a_number_for_a_version_is_told_as_text() -> None:
    policy = load_policy(Told("mine", 5))

    assert (name_of(policy), version_of(policy)) == ("mine", "5")
    assert version_of(Told("mine", None)) is None


@pytest.mark.parametrize("wrong", [[1], True, 1.5, b"5", "\ud800", "x" * 201, object()])
def test_a_name_or_a_version_that_the_log_cannot_hold_is_refused(wrong: Any) -> None:
    for name, version, which in ((wrong, None, "name"), ("mine", wrong, "version")):
        with pytest.raises(PolicyError, match=f"Told is no policy: its {which} is text"):
            load_policy(Told(name, version))


@pytest.mark.parametrize("name", [None, ""])
def test_a_policy_has_a_name(name: Any) -> None:
    with pytest.raises(PolicyError, match="it has no name"):
        load_policy(Told(name, None))


@pytest.mark.parametrize("path", ["x" * 300, "x" * 300 + "/y", "\0"])
def test_what_no_file_can_be_called_is_no_policy(path: str) -> None:
    with pytest.raises(PolicyError, match="there is no policy"):
        load_policy(path)
