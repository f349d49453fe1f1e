"""What was learned, kept in a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.consumers.policy import CheckpointError, PolicyError, load_checkpoint, load_policy, save_checkpoint
from morphogen.consumers.policy.gnn import Brain, Learned, Settings

from .graphs import graph


def test_a_checkpoint_gives_back_every_decision_to_the_bit(tmp_path: Path) -> None:
    policy = Learned(5, explore=True)
    version = policy.save(tmp_path / "p.safetensors")
    again = load_policy(str(tmp_path / "p.safetensors"), seed=5, explore=True)

    assert again.version == policy.version == version
    for seed in range(5):
        assert again.decide(graph(4, seed)) == policy.decide(graph(4, seed))
    assert Learned(6).save(tmp_path / "q.safetensors") != version
    assert Learned(5, explore=False).save(tmp_path / "r.safetensors") == version


def test_a_checkpoint_neither_explores_nor_draws_lots(tmp_path: Path) -> None:
    Learned(0).save(tmp_path / "p")
    one, other = (load_policy(str(tmp_path / "p"), seed=seed) for seed in (1, 2))

    assert all(one.decide(graph(4, seed)) == other.decide(graph(4, seed)) for seed in range(5))


def test_exploring_depends_on_the_seed_and_the_epoch_alone() -> None:
    def choices(seed: int) -> list[int]:
        policy = Learned(seed, brain=Brain.new(0), explore=True)
        return [policy.decide(graph(4, 1, legal=1.0, epoch=epoch)).index for epoch in range(30)]

    assert choices(1) == choices(1)
    assert choices(1) != choices(2)
    assert len(set(choices(1))) > 3


def test_the_reason_says_what_was_expected_and_how_sure_that_is() -> None:
    brain = Brain.new(0)
    policy = Learned(brain=brain, explore=True)
    for epoch in range(40):
        observation = graph(4, 1, legal=1.0, epoch=epoch)
        proposal = policy.decide(observation)
        if observation.actions[proposal.index].op == "germinate":
            assert proposal.uncertainty is not None
            assert proposal.uncertainty > 0
            assert "expected" in proposal.reason
            assert "±" in proposal.reason
            break
        assert proposal.uncertainty is None
    else:
        pytest.fail("it never germinated")


def changed(state: dict[str, Any], tensors: dict[str, Any], how: str) -> None:
    """Damage what a checkpoint holds."""
    if how == "no settings":
        del state["settings"]
    elif how == "odd heads":
        state["settings"]["heads"] = 5
    elif how == "huge":
        state["settings"]["hidden"] = 1 << 40
    elif how == "text":
        state["schooling"]["updates"] = "many"
    elif how == "lacking":
        del tensors["rule"]
    elif how == "more":
        tensors["more"] = np.zeros(3, np.float32)
    elif how == "shape":
        tensors["ops.bias"] = np.zeros(3, np.float32)
    elif how == "nan":
        tensors["rule"] = np.full(1, np.nan, np.float32)
    elif how == "wide":
        tensors["rule"] = np.full(1, 1e300)
    elif how == "endless":
        state["settings"]["rounds"] = {"act": 10**9, "gain": 1}
    elif how == "counts":
        state["schooling"]["updates"] = 10**18 * 10
    elif how == "columns":
        state["columns"] = state["columns"][:-1]


@pytest.mark.parametrize(
    "how",
    [
        "no settings",
        "odd heads",
        "huge",
        "text",
        "lacking",
        "more",
        "shape",
        "nan",
        "columns",
        "rounds",
        "wide",
        "endless",
        "counts",
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, how: str) -> None:
    Learned(0).save(tmp_path / "p")
    good = load_checkpoint(tmp_path / "p")
    state, tensors = good.state, dict(good.tensors)
    changed(state, tensors, how)
    if how == "rounds":
        state["settings"]["rounds"] = {"act": 3}
    save_checkpoint(tmp_path / "bad", "gnn-ppo", state, tensors)

    with pytest.raises(CheckpointError) as caught:
        load_policy(str(tmp_path / "bad"))
    assert "\n" not in str(caught.value)
    assert f"{tmp_path / 'bad'}: no checkpoint of gnn-ppo" in str(caught.value)


@settings(max_examples=25)
@given(st.integers(0, 2**20), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_is_another_version(
    tmp_path_factory: pytest.TempPathFactory, at: int, flip: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "p"
    version = Learned(0, settings=Settings(hidden=8, heads=2)).save(path)
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= flip
    path.write_bytes(data)

    try:
        found = load_policy(str(path)).version
    except PolicyError as error:
        found = f"refused: {error}"
    assert found != version
    assert found is not None
    assert "\n" not in found


@pytest.mark.parametrize(
    "given",
    [{"hidden": 10**9}, {"hidden": 0}, {"heads": 5}, {"members": 10**9}, {"rounds": {"act": 10**9, "gain": 1}},
     {"rounds": {"act": 1}}, {"rounds": {"act": -1, "gain": 1}}, {"habits": {"wait": float("nan")}}, {"rule": 1e308},
     {"floor": 2.0}, {"passes": 10**9}, {"capacity": 0}],
)  # fmt: skip
def test_settings_of_no_reasonable_network_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="policy gnn-ppo: settings: "):
        Brain.new(0, settings=Settings(**given))
