"""Whatever a log holds, in whatever order: folding it, observing and deciding never fails, and nothing illegal passes."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.policy import Decider, Dish, Limits, Observation, config_of, load_policy, observe
from morphogen.consumers.policy.protocol import STAGES
from morphogen.schemas import (
    AdaptationStarted,
    ArtifactQuarantined,
    EpochMeasured,
    Event,
    HostRestored,
    LayerHealth,
    Names,
    SiteInfo,
    SlotAlphaChanged,
    SlotContribution,
    SlotFailed,
    SlotGerminated,
    SlotHealth,
    SlotStageChanged,
)

SLOTS = st.sampled_from(["fc#0", "fc#1", "out#0", "elsewhere#0", "#", ""])
anything = st.floats(width=32) | st.none()
number = st.floats()
names = st.lists(st.sampled_from(["fc", "out", "x", ""]), max_size=4, unique=True).map(Names)
vectors = st.none() | st.lists(st.floats(width=32), max_size=5).map(lambda values: np.array(values, "<f4"))
started = st.builds(
    AdaptationStarted,
    sites=st.lists(
        st.builds(
            SiteInfo,
            site=st.sampled_from(["fc", "out"]),
            kind=st.sampled_from(["features", "image", "sequence"]),
            in_shape=st.none() | st.lists(st.integers(0, 64), max_size=3),
            out_shape=st.none() | st.lists(st.integers(0, 64), max_size=3),
            slots=st.integers(0, 2),
            params=st.integers(-1, 10**6),
        ),
        max_size=2,
    ),
    policy=st.just("any"),
    config=st.just(config_of(Limits(alphas=(0.5,), horizon=20), {"fc": [Dish(name="a", params=3)]})),
)
events = st.one_of(
    started,
    st.builds(
        EpochMeasured, epoch=st.integers(0, 30), train_loss=anything, val_loss=anything, val_accuracy=anything,
        learning_rate=anything, plateau=st.booleans(),
    ),
    st.builds(
        LayerHealth, layers=names, grad_norm=vectors, nonfinite=vectors,
        missing=st.dictionaries(st.sampled_from(["grad_norm", "dead_share"]), st.lists(st.integers(-9, 9), max_size=3)),
    ),
    st.builds(SlotGerminated, slot=SLOTS, seed=st.just("s"), blueprint=st.just("b"), params=st.integers(-5, 10**9)),
    st.builds(
        SlotStageChanged, slot=SLOTS, seed=st.none(), from_stage=st.just("?"), reason=st.just(""), alpha=number,
        to_stage=st.sampled_from([*STAGES, "unheard of"]),
    ),
    st.builds(
        SlotAlphaChanged, slot=SLOTS, seed=st.just("s"), alpha_from=number, alpha_to=number, ramp=st.just("linear"),
        steps=st.integers(-1, 5),
    ),
    st.builds(
        SlotHealth, slots=names, stages=st.just([]), alpha=st.lists(st.floats(width=32), max_size=5).map(
            lambda values: np.array(values, "<f4")), grad_norm=vectors,
    ),
    st.builds(
        SlotContribution, slot=SLOTS, seed=st.just("s"), split=st.just("val"), n=st.integers(0, 9), alpha=number,
        loss_with=anything, loss_without=anything,
    ),
    st.builds(
        SlotFailed, slot=SLOTS | st.none(), seed=st.none(), error=st.just("x"), message=st.just(""),
        recovery=st.just("cut"), recovered=st.booleans(),
    ),
    st.builds(HostRestored, reason=st.just("x"), snapshot_step=st.none()),
    st.builds(ArtifactQuarantined, blueprint=st.just("b"), reason=st.just(""), failures=st.integers(0, 9)),
)  # fmt: skip


@given(
    st.lists(st.tuples(events, st.none() | st.integers(0, 500)), max_size=25),
    st.sampled_from(["none", "random", "fixed", "heuristic", "bandit"]),
)
def test_any_events_in_any_order_can_be_decided_on(told: list[tuple[Event, int | None]], name: str) -> None:
    decider = Decider(load_policy(name, seed=1))
    for event, step in told:
        decider.take(event, step)
        decided = decider.decide()
        assert decided.observation.legal[0]
        assert decided.proposed.reason.startswith("policy ") is False, decided.proposed.reason
        assert decided.verdict.approved == bool(
            decided.observation.legal[decided.proposed.index]
        ) or decided.verdict.blocked_by in {"stability"}
    again = observe(decider.state)
    assert Observation.of(again.event()).sha256 == again.sha256
    assert all(math.isfinite(value) for value in again.edges.reshape(-1).tolist())
