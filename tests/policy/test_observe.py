"""What a policy is shown: folded from the log, the same bits whatever order the log gives."""

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.policy import (
    Decider,
    Limits,
    Observation,
    PolicyError,
    Setting,
    State,
    Told,
    fold,
    load_policy,
    observe,
    plateau,
    timeline,
)
from morphogen.consumers.policy.samples import EMPTY, SAMPLES, Bin, Sample
from morphogen.schemas import (
    AdaptationStarted,
    EpochMeasured,
    Event,
    HostRestored,
    LayerHealth,
    MorphogenError,
    Names,
    Observed,
    SiteInfo,
    SlotFailed,
    decode_event,
)


def test_an_observation_comes_back_from_the_log_with_equal_bits(play: Any) -> None:
    seen = play(load_policy("heuristic"), {"layers.0|mlp16": 0.5}).run().decided[-1].observation
    event = decode_event("decision.observed", 1, seen.event().encode())
    assert isinstance(event, Observed)

    back = Observation.of(event)

    assert back.sha256 == seen.sha256 == event.observation
    assert back.features.tobytes() == seen.features.tobytes()
    assert (back.actions, back.legal.tolist(), back.edges.tolist()) == (
        seen.actions,
        seen.legal.tolist(),
        seen.edges.tolist(),
    )


@pytest.mark.parametrize("name", ["none", "random", "fixed", "heuristic", "bandit"])
def test_the_log_rebuilds_every_decision_bit_for_bit(play: Any, name: str) -> None:
    options = {"plan": [(9, "layers.1", "mlp16"), (30, "layers.0#0", "norm")]} if name == "fixed" else {}
    helps = {"layers.0|mlp16": 0.4, "layers.1|mlp16": 0.2, "layers.2|norm": -0.1}
    ran = play(load_policy(name, seed=3, **options), helps).run()
    mixed = list(ran.told)
    random.Random(5).shuffle(mixed)

    again = Decider(load_policy(name, seed=3, **options), scope="play")
    decided = []
    for told in timeline(mixed):
        if isinstance(told.event, Observed):
            decided.append(again.decide())
        event = decode_event(told.event.type, told.event.version, told.event.encode())
        assert isinstance(event, Event)
        again.take(event, told.step)

    assert len(decided) == len(ran.decided)
    for one, other in zip(decided, ran.decided, strict=True):
        assert [event.encode() for event in one.events] == [event.encode() for event in other.events]


@given(st.randoms(use_true_random=False), st.integers(1, 400), st.integers(0, 400))
def test_samples_of_an_epoch_give_one_mean_in_any_order(order: random.Random, count: int, cut: int) -> None:
    layers = ("a", "b")
    samples = [Sample(step, layers, np.full((2, 7), step, np.float32)) for step in range(1, count + 1)]
    mixed = samples[:]
    order.shuffle(mixed)

    straight, shuffled = EMPTY, EMPTY
    for one, other in zip(samples, mixed, strict=True):
        straight, shuffled = straight.add(one), shuffled.add(other)

    assert straight.mean(layers).tobytes() == shuffled.mean(layers).tobytes()
    assert straight.count <= SAMPLES
    within, after = straight.split(cut)
    assert [sample.step for sample in within.samples() + after.samples()] == [one.step for one in straight.samples()]
    assert all(sample.step <= cut for sample in within.samples())


def test_a_longer_bin_leaves_the_shorter_one_as_it_was() -> None:
    first = EMPTY.add(Sample(1, ("a",), np.zeros((1, 7), np.float32)))
    first.add(Sample(2, ("a",), np.ones((1, 7), np.float32)))

    assert [sample.step for sample in first.samples()] == [1]
    assert Bin() == EMPTY


def _begun(**limits: Any) -> State:
    sites = [SiteInfo(site="fc", kind="features", in_shape=[8], out_shape=[2], slots=1, params=18)]
    return fold(State(), AdaptationStarted(sites=sites, policy="none", config={"limits": limits}))


def _layers(*values: float, missing: dict[str, list[int]] | None = None) -> LayerHealth:
    return LayerHealth(layers=Names(("fc", "out")), grad_norm=np.array(values, "<f4"), missing=missing or {})


def test_health_belongs_to_the_epoch_of_its_step_even_if_it_comes_late() -> None:
    in_time, late = _begun(), _begun()
    for step, event in (
        (1, _layers(1, 1)),
        (2, _layers(3, 3)),
        (2, EpochMeasured(epoch=0, val_loss=1.0)),
        (3, _layers(9, 9)),
    ):
        in_time = fold(in_time, event, step)
    for step, event in (
        (1, _layers(1, 1)),
        (2, EpochMeasured(epoch=0, val_loss=1.0)),
        (3, _layers(9, 9)),
        (2, _layers(3, 3)),
    ):
        late = fold(late, event, step)

    assert observe(in_time).sha256 == observe(late).sha256
    row = observe(late).layer_row["fc"]
    assert observe(late).features[row, observe(late).column["grad_norm.last"]] == 2.0


def test_what_was_not_measured_is_nan_and_never_zero() -> None:
    state = fold(_begun(), _layers(1.0, 7.0, missing={"grad_norm": [1]}), 1)
    seen = observe(fold(state, EpochMeasured(epoch=0), 1))

    column = seen.column["grad_norm.last"]
    assert seen.features[seen.layer_row["fc"], column] == 1.0
    assert math.isnan(seen.features[seen.layer_row["out"], column])
    assert seen.value("val_loss.last") is None
    assert seen.value("contribution", "fc#0") is None
    assert seen.value("no such thing") is None


def test_a_run_without_watched_layers_shows_its_sites_and_slots() -> None:
    seen = observe(fold(_begun(), EpochMeasured(epoch=0, val_loss=2.0), 10))

    assert list(zip(seen.nodes, seen.kinds, strict=True)) == [("run", "global"), ("fc", "layer"), ("fc#0", "slot")]
    assert seen.edges.tolist() == [[1, 2], [2, 1]]
    assert seen.value("val_loss.last") == 2.0
    assert (seen.value("in_size", "fc#0"), seen.value("out_size", "fc#0")) == (8, 2)


def test_windows_give_the_last_value_means_and_slopes() -> None:
    state = _begun()
    for epoch in range(30):
        state = fold(state, EpochMeasured(epoch=epoch, val_loss=100.0 - 2 * epoch), epoch)
    seen = observe(state)

    assert seen.value("val_loss.last") == 42
    assert seen.value("val_loss.mean5") == 46
    assert seen.value("val_loss.mean20") == 61
    assert seen.value("val_loss.slope5") == pytest.approx(-2)
    assert seen.value("val_loss.slope20") == pytest.approx(-2)
    assert seen.value("best_loss") == 42


def test_layers_that_appear_later_join_the_graph() -> None:
    state = fold(fold(_begun(), _layers(1, 2), 1), EpochMeasured(epoch=0), 1)
    more = LayerHealth(layers=Names(("out", "fc", "new")), grad_norm=np.array([5, 6, 7], "<f4"))
    seen = observe(fold(fold(state, more, 2), EpochMeasured(epoch=1), 2))

    assert list(seen.layer_row) == ["out", "fc", "new"]
    column = seen.column["grad_norm.mean5"]
    assert [seen.features[row, column] for row in seen.layer_row.values()] == [3.5, 3.5, 7.0]


def test_dataflow_edges_are_those_of_the_config() -> None:
    config = {"edges": [["a", "c"], ["b", "c"], ["gone", "c"]]}
    sites = [SiteInfo(site=name, kind="features", in_shape=None, out_shape=None, slots=0, params=0) for name in "abc"]
    seen = observe(fold(State(), AdaptationStarted(sites=sites, policy="none", config=config)))

    assert seen.edges.tolist() == [[1, 2], [3, 3]]


def test_folding_never_changes_the_state_that_was_given(play: Any) -> None:
    ran = play(load_policy("heuristic"), {"layers.0|mlp16": 0.5}, epochs=20).run()

    for state, decided in zip(ran.states, ran.decided, strict=True):
        assert observe(state).sha256 == decided.observation.sha256


def test_failures_and_rollbacks_are_counted() -> None:
    state = fold(_begun(), EpochMeasured(epoch=4, val_loss=1.0), 4)
    failed = SlotFailed(slot="fc#0", seed=None, error="nonfinite", message="", recovery="cut", recovered=True)
    seen = observe(fold(fold(state, failed), HostRestored(reason="nonfinite", snapshot_step=1)))

    assert (seen.value("failures", "fc#0"), seen.value("rollbacks"), seen.value("epochs_since_trouble")) == (1, 1, 0)


def test_a_config_that_does_not_fit_is_told_in_one_line() -> None:
    with pytest.raises(PolicyError, match="'limits' does not fit") as told:
        Setting.of({"limits": {"cooldown": "soon"}})

    assert isinstance(told.value, MorphogenError)
    assert "\n" not in str(told.value)
    assert Setting.of({"limits": None, "else": 1}).limits == Limits()


def test_a_clock_that_was_set_back_does_not_reorder_a_family() -> None:
    back = [Told("slot", 1, 100, None, _layers(1, 1)), Told("slot", 2, 50, None, _layers(2, 2))]

    assert [told.n for told in timeline(reversed(back))] == [1, 2]


def test_a_plateau_needs_two_whole_windows() -> None:
    assert not plateau([1.0] * 9)
    assert plateau([1.0] * 10)
    assert not plateau([2.0] * 5 + [1.0] * 5)
    assert not plateau([1.0] * 9 + [None])
    assert not plateau([1.0] * 9 + [math.nan])
    assert plateau([1.0] * 5 + [2.0] * 5)
