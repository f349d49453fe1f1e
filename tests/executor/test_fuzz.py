"""Anything at all may be asked of an executor: the host never diverges, nothing crashes, nothing leaks."""

import gc
import math
import random
import weakref
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.consumers.executor import fold_all
from morphogen.schemas import Action, AdaptationStarted, SlotFailed

OPS = ["wait", "germinate", "set_alpha", "advance", "prune", "fossilize", "", "GERMINATE", "reset", "__class__"]
SLOTS = ["0#0", "2#0", "0#1", "", "#", "0", "x" * 5000, "0#0.1", "../0#0", None, 7, b"0#0", ["0#0"]]
NAMES = ["mlp16", "rank1", "norm", "", "x" * 5000, "mlp16\n", None, 3, object()]
NUMBERS = [0.0, 0.3, 1.0, -0.0, -1.0, 2.0, math.nan, math.inf, -math.inf, 1e308, None, "1", True, [1]]
STEPS = [0, 1, 5, -1, 10**30, 1.5, None, "3", True]
RAMPS = ["linear", "cosine", "sigmoid", "", "none", None, 4]


def anything(random_: random.Random) -> Any:
    """Return an action that may make sense, or something that is none."""
    if random_.random() < 0.05:
        return random_.choice(
            [None, 0, "prune", {}, {"op": "prune", "slot": "0#0"}, object(), Action, [Action(op="wait")]]
        )
    sane = random_.random() < 0.6
    return Action(
        op=random_.choice(OPS[:6] if sane else OPS),
        slot=random_.choice(SLOTS[:2] if sane else SLOTS),
        blueprint=random_.choice(NAMES[:3] if sane else NAMES),
        alpha=random_.choice(NUMBERS),  # type: ignore[arg-type]
        ramp=random_.choice(RAMPS),  # type: ignore[arg-type]
        steps=random_.choice(STEPS),  # type: ignore[arg-type]
    )


def test_ten_thousand_random_and_malformed_actions_do_the_host_no_harm(story: Any) -> None:
    one = story(bounds={"min_training": 0, "min_holding": 0, "max_active": 2}, config={"embargo": 0})
    random_ = random.Random(11)
    done = 0
    for number in range(10_000):
        done += one.executor.apply(anything(random_), decision=f"d{number}").done
        if number % 50 == 49:
            one.executor.rest()
            one.epoch(steps=1)
            assert math.isfinite(one.losses[-1])
    assert done > 100
    assert one.said(SlotFailed) == []
    again = fold_all([AdaptationStarted(sites=list(one.slots.sites), policy="test"), *one.events])
    assert again == one.executor.states
    seeds = {id(p) for slot in one.slots.values() for p in slot.params()}
    own = {id(p) for p in one.model.parameters()}
    held = [id(p) for group in one.optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(own)  # each once, and nothing that is gone
    assert seeds <= own
    assert {id(p) for p in one.optimizer.state} <= own
    assert len(one.optimizer._optimizer_step_pre_hooks) <= 1
    assert all(torch.isfinite(value).all() for value in one.model.state_dict().values())


def test_where_nothing_is_legal_the_host_trains_to_the_same_bits_as_alone(story: Any) -> None:
    one, bare = story(bounds={"max_active": 0}, norm=True), story(norm=True)
    random_ = random.Random(5)
    for number in range(1000):
        action = anything(random_)
        applied = one.executor.apply(action)
        assert not applied.done or action.op == "wait"
        if number % 100 == 99:
            one.epoch(), bare.epoch()
    state = one.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in bare.model.state_dict().items())
    assert list(state) == list(bare.model.state_dict())
    assert one.clean()


def test_seeds_that_are_gone_are_freed(story: Any) -> None:
    one = story()
    gone: list[weakref.ref[Any]] = []
    for _ in range(6):
        one.epoch(Action(op="germinate", slot="0#0", blueprint="mlp16"))
        gone.append(weakref.ref(one.slots["0#0"].seed))
        one.epoch(Action(op="advance", slot="0#0"))
        one.epoch(Action(op="prune", slot="0#0"))
        one.epoch()
    gc.collect()
    assert [ref() for ref in gone] == [None] * 6
    assert one.clean()
    assert len(one.executor.standing) == 0


LEGAL = st.sampled_from(
    [Action(op=op, slot=slot) for op in ("advance", "prune", "fossilize") for slot in ("0#0", "2#0")]
    + [Action(op="germinate", slot=slot, blueprint=name) for slot in ("0#0", "2#0") for name in ("mlp16", "rank1")]
    + [Action(op="set_alpha", slot="0#0", alpha=alpha, steps=steps) for alpha in (0.0, 0.5, 1.0) for steps in (0, 2)]
)


@settings(max_examples=25)
@given(st.lists(st.lists(LEGAL, max_size=3), max_size=8), st.booleans())
def test_the_fold_of_the_events_is_what_stands_whatever_was_done(
    story: Any, epochs: list[list[Action]], auto: bool
) -> None:
    one = story(config={"auto": auto, "patience": 1}, bounds={"min_training": 0, "min_holding": 0})
    for actions in epochs:
        one.epoch(*actions, steps=1)
    one.epoch(steps=1)
    again = fold_all([AdaptationStarted(sites=list(one.slots.sites), policy="test"), *one.events])
    for slot_id, slot in one.slots.items():
        state = again[slot_id]
        assert (state.stage, state.seed, state.alpha) == (slot.stage, slot.seed_id, slot.alpha)
        assert state.germinated == slot.germinated
        assert state.blueprint == (slot.blueprint if slot.graft is not None else None)
