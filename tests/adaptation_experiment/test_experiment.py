"""The experiment's own parts: splits that are paired and disjoint, honest intervals, and a sham that changes no bit."""

import dataclasses
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

FOLDER = Path(__file__).parents[2] / "benchmarks" / "adaptation"
PARTS = ("splits", "hosts", "judged", "training", "policies", "arms", "intervals", "table", "reading", "teaching")
sys.path.insert(0, str(FOLDER))
for _part in PARTS:
    __import__(_part)
splits, hosts, judged, training, policies, arms, intervals, table, reading, teaching = (sys.modules[p] for p in PARTS)


@pytest.fixture(scope="module", autouse=True)
def _folder() -> Iterator[None]:
    """Leave no trace in the import path once these tests are over."""
    yield
    sys.path.remove(str(FOLDER))


class Kept:
    """A recorder that keeps its events."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.numbers: list[dict[str, float]] = []

    def event(self, event: Any, *, step: int | None = None, cause: str | None = None) -> str:
        self.events.append(event)
        return str(len(self.events))

    def log(self, numbers: dict[str, float], *, step: int) -> None:
        self.numbers.append(numbers)


def short(name: str, epochs: int) -> Any:
    return dataclasses.replace(hosts.HOSTS[name], epochs=epochs)


@pytest.mark.parametrize("data", splits.SPLITS)
def test_parts_of_a_split_are_disjoint_and_the_same_for_a_seed_every_time(data: str) -> None:
    first, again, other = (splits.SPLITS[data](seed) for seed in (3, 3, 4))

    train, validation, test = (set(part.tolist()) for part in first.rows)
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert len(train) > len(validation) > 0
    assert test
    assert first.sha256 == again.sha256 != other.sha256
    assert (first.train[0] == again.train[0]).all()


def test_digits_are_split_as_stated() -> None:
    assert [len(part) for part in splits.digits(0).rows] == [1010, 337, 450]


def test_a_test_part_opens_once() -> None:
    sealed = splits.digits(0).test

    inputs, labels = sealed.open()
    assert len(inputs) == len(labels) == 450
    with pytest.raises(splits.TestReadTwiceError, match="once"):
        sealed.open()


def test_splits_that_policies_learn_on_are_not_those_they_are_judged_on() -> None:
    assert teaching.FIRST >= 500
    judged_on = {splits.digits(seed).sha256 for seed in range(20)}
    assert not judged_on & {splits.digits(teaching.FIRST + number).sha256 for number in range(20)}


@pytest.mark.parametrize("name", hosts.HOSTS)
def test_a_host_begins_with_equal_weights_for_equal_seeds_and_leaves_the_global_generator_alone(name: str) -> None:
    import torch

    host = hosts.HOSTS[name]
    before = torch.random.get_rng_state()
    one, two, other = host.model(1), host.model(1), host.model(2)

    assert torch.equal(before, torch.random.get_rng_state())
    states = [list(model.state_dict().values()) for model in (one, two, other)]
    assert all(torch.equal(a, b) for a, b in zip(states[0], states[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(states[0], states[2], strict=True))
    inputs, targets = host.split(1).train
    assert math.isfinite(training.loss_of(one(inputs[:4]), targets[:4]).item())


def test_the_digits_host_has_166_parameters_and_a_bottleneck_of_two() -> None:
    model = hosts.HOSTS["digits"].model(0)

    assert sum(parameter.numel() for parameter in model.parameters()) == 166
    assert [layer.out_features for layer in model if hasattr(layer, "out_features")] == [2, 2, 10]


def run_arm(name: str, host: Any, seed: int, **limits: Any) -> tuple[Any, Kept]:
    arm, kept = arms.ARMS[name], Kept()
    begin = None
    if arm.policy is not None:
        begin = arms.growing(arm.policy(host, seed, arms.Known()), host, seed, limits=limits, label=name)
    done = training.train(host, seed, run=kept, begin=begin)
    return training.judge(host, seed, name, "", done, kept), kept


def test_a_sham_graft_equals_none_bit_for_bit() -> None:
    from morphogen.schemas import SlotGerminated

    host = short("digits", 3)
    none, alone = run_arm("none", host, 7)
    sham, beside = run_arm("sham", host, 7, earliest=0, last_call=0)

    assert [type(event) for event in beside.events].count(SlotGerminated) == 1
    assert sham.host_weights == none.host_weights
    assert (sham.test_loss, sham.test_accuracy) == (none.test_loss, none.test_accuracy)
    assert beside.numbers == alone.numbers
    assert sham.split == none.split


def test_a_topology_known_beforehand_begins_as_the_host_and_trains_as_more_than_it() -> None:
    import torch

    host = short("digits", 1)
    grown = arms.with_topology(host, 0, [("0#0", "mlp16", 5), ("4#0", "norm", 6)])
    inputs = host.split(0).train[0]

    assert torch.equal(grown(inputs), host.model(0)(inputs))
    with_seeds = training.train(host, 0, model=grown)
    without = training.train(host, 0)
    assert with_seeds.validated.loss != without.validated.loss
    assert sum(p.numel() for p in grown.parameters()) > 166


def test_an_interval_is_students() -> None:
    found = intervals.interval([1.0, 2.0, 3.0, 4.0])

    assert found.mean == 2.5
    assert found.half == pytest.approx(3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2, rel=1e-5)
    assert math.isnan(intervals.interval([1.0]).half)
    assert not intervals.interval([1.0]).clear_of_zero
    with pytest.raises(ValueError, match="no run"):
        intervals.interval([])


@given(st.dictionaries(st.integers(0, 50), st.floats(-100, 100), min_size=2), st.floats(-50, 50))
def test_pairing_removes_what_both_arms_share(scores: dict[int, float], gain: float) -> None:
    found = intervals.paired({seed: score + gain for seed, score in scores.items()}, scores)

    assert found is not None
    assert found.difference.mean == pytest.approx(gain, abs=1e-9)
    assert found.difference.half == pytest.approx(0, abs=1e-9)
    assert found.difference.n == len(scores)


def test_only_seeds_that_both_arms_have_are_compared() -> None:
    found = intervals.paired({0: 5.0, 1: 7.0, 9: 100.0}, {0: 4.0, 1: 8.0, 3: -100.0})

    assert found is not None
    assert (found.difference.mean, found.ahead, found.behind) == (0.0, 1, 1)
    assert intervals.paired({0: 1.0}, {1: 1.0}) is None


def judgement(arm: str, seed: int, accuracy: float, weights: str = "w") -> Any:
    return judged.Judged(
        host="digits", arm=arm, seed=seed, setting="", split=str(seed), epochs=1, validation_loss=0.0,
        validation_accuracy=0.0, test_loss=0.5, test_accuracy=accuracy, host_params=166, params=166,
        host_weights=weights, seconds=1.0,
    )  # fmt: skip


def test_the_checks_say_no_where_a_figure_is_not_reached_and_unknown_where_it_was_not_measured() -> None:
    runs = {f"none-{s}": judgement("none", s, 0.6 + s / 100) for s in range(3)}
    runs |= {f"bandit-{s}": judgement("bandit", s, 0.9 + s / 100) for s in range(3)}
    runs |= {f"sham-{s}": judgement("sham", s, 0.6 + s / 100, weights="other" if s == 2 else "w") for s in range(3)}
    growth = {f"bandit-{s}": {"germinations": 2, "helped": 1, "dangers": int(s == 0)} for s in range(3)}

    found = {
        what: reached for what, reached, _ in table.checks(table.rows_of(runs, growth, arms.ARMS), {"gnn-ppo": 1000})
    }

    assert found["bandit ≥ +22 points over none"] is True
    assert found["gnn-ppo ≥ +22 points over none"] is None
    assert found["gnn-ppo trained with fewer than 1,000 experiences"] is False
    assert found["sham equals none, bit for bit"] is False
    assert found["≥ 70% of the policies' adaptations helped"] is False
    assert found["0 dangerous adaptations executed, in any arm"] is False


def test_a_run_is_read_back_from_the_log_as_it_was_judged(broker: Any, settings: Any) -> None:
    import morphogen

    host = short("moons", 12)
    policy = arms.ARMS["heuristic"].policy(host, 0, arms.Known())
    with morphogen.record("moons-heuristic-000", settings=settings) as run:
        begin = arms.growing(policy, host, 0, limits={"earliest": 0, "last_call": 0}, label="heuristic")
        written = training.judge(host, 0, "heuristic", "s", training.train(host, 0, run=run, begin=begin), run)

    assert reading.judged_runs(settings) == {"moons-heuristic-000": written}
    grown = reading.by_run(settings, reading.GROWTH)["moons-heuristic-000"]
    decided = reading.by_run(settings, reading.DECISIONS).get("moons-heuristic-000", {"germinations": 0})
    assert grown["germinated"] == decided["germinations"]
    assert reading.by_run(settings, reading.DANGER) == {}
    standing = reading.topologies(settings, "heuristic", "moons")
    assert len(standing[0]) == grown["fossilized"]
