"""The legal mask: by the life of a slot and by the limits of the run."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.policy import Dish, Limits, Setting, State, Weights, load_policy, refusal
from morphogen.consumers.policy.legal import actions, mask
from morphogen.consumers.policy.observe import Judgement, SlotState
from morphogen.consumers.policy.protocol import STAGES
from morphogen.kernels.slots.lifecycle import LEGAL, Stage
from morphogen.schemas import Action

MENU = {"a": (Dish(name="small", params=10, flops=20), Dish(name="large", params=1000, flops=2000, address="f00d"))}

judgements = st.none() | st.builds(
    Judgement,
    epoch=st.integers(0, 20),
    alpha=st.sampled_from([0.0, 0.5, 1.0]),
    loss=st.none() | st.floats(-1, 1),
    accuracy=st.none(),
)
slots = st.builds(
    SlotState,
    slot=st.just("a#0"),
    site=st.sampled_from(["a", "b"]),
    stage=st.sampled_from(STAGES),
    since=st.integers(-1, 20),
    params=st.integers(0, 500),
    alpha=st.sampled_from([0.0, 0.5, 1.0]),
    target=st.none() | st.sampled_from([0.0, 0.5, 1.0]),
    contribution=judgements,
)
limits = st.builds(
    Limits,
    max_active=st.integers(0, 2),
    max_fossilized=st.none() | st.integers(0, 2),
    max_params=st.none() | st.integers(0, 2000),
    max_flops=st.none() | st.integers(0, 3000),
    cooldown=st.integers(0, 5),
    horizon=st.none() | st.integers(1, 30),
    last_call=st.integers(0, 10),
    alphas=st.sampled_from([(), (0.5, 1.0)]),
)


@st.composite
def states(draw: st.DrawFn) -> State:
    found = {name: draw(slots) for name in ("a#0", "a#1")}
    return State(
        setting=Setting(draw(limits), MENU, (), Weights()),
        epoch=draw(st.integers(-1, 20)),
        slots={name: SlotState(**{**vars(slot), "slot": name}) for name, slot in found.items()},
        changed=draw(st.none() | st.integers(-1, 20)),
        quarantined=draw(st.sampled_from([frozenset(), frozenset({"f00d"})])),
    )


@given(states())
def test_the_mask_says_what_the_refusals_say(state: State) -> None:
    offered, legal, params = mask(state)
    table, dishes = actions(state)

    assert offered == table
    assert legal == [refusal(state, action) is None for action in offered]
    assert params == tuple(dish.params if dish else 0 for dish in dishes)
    assert legal[0], "waiting is always legal"


@given(states())
def test_what_is_legal_here_is_legal_in_the_life_of_a_slot(state: State) -> None:
    offered, legal, _ = mask(state)
    ahead = {
        "germinated": Stage.TRAINING,
        "training": Stage.BLENDING,
        "blending": Stage.HOLDING,
    }
    for action, allowed in zip(offered, legal, strict=True):
        if not allowed or action.op in {"wait", "set_alpha"}:
            continue
        stage = state.slots[action.slot or ""].stage
        goal = {
            "germinate": Stage.GERMINATED,
            "prune": Stage.PRUNED,
            "fossilize": Stage.FOSSILIZED,
            "advance": ahead.get(stage),
        }[action.op]
        assert goal in LEGAL[Stage(stage)]


def _state(slot: SlotState, *, epoch: int = 10, **bounds: Any) -> State:
    return State(setting=Setting(Limits(**bounds), MENU, (), Weights()), epoch=epoch, slots={slot.slot: slot})


def _holding(**changes: Any) -> SlotState:
    judged = Judgement(epoch=9, alpha=1.0, loss=0.1, accuracy=None)
    return SlotState(
        **{"slot": "a#0", "site": "a", "stage": "holding", "since": 8, "alpha": 1.0, "contribution": judged, **changes}
    )


FOSSILIZE = Action(op="fossilize", slot="a#0")


def test_a_seed_is_kept_only_for_a_contribution_that_was_measured_while_it_was_blended() -> None:
    assert refusal(_state(_holding()), FOSSILIZE) is None
    for judged in (
        None,
        Judgement(epoch=9, alpha=1.0, loss=None, accuracy=0.5),
        Judgement(epoch=9, alpha=0.0, loss=0.1, accuracy=None),
        Judgement(epoch=3, alpha=1.0, loss=0.1, accuracy=None),
    ):
        assert "not measured" in str(refusal(_state(_holding(contribution=judged)), FOSSILIZE))


def test_a_seed_that_does_not_help_enough_is_not_kept() -> None:
    assert "0.2 is needed" in str(refusal(_state(_holding(), min_contribution=0.2), FOSSILIZE))


@pytest.mark.parametrize(
    ("action", "bounds", "reason"),
    [
        (Action(op="germinate", slot="a#0", blueprint="large"), {"max_params": 999}, "parameters"),
        (Action(op="germinate", slot="a#0", blueprint="large"), {"max_flops": 1999}, "FLOPs"),
        (Action(op="germinate", slot="a#0", blueprint="small"), {"max_active": 0}, "not judged"),
        (Action(op="germinate", slot="a#0", blueprint="small"), {"max_fossilized": 0}, "may be fossilized"),
        (Action(op="germinate", slot="a#0", blueprint="small"), {"earliest": 11}, "before epoch 11"),
        (Action(op="germinate", slot="a#0", blueprint="small"), {"horizon": 12, "last_call": 2}, "epochs are left"),
        (Action(op="germinate", slot="a#0", blueprint="huge"), {}, "no 'huge'"),
        (Action(op="germinate", slot="b#0", blueprint="small"), {}, "no slot"),
        (Action(op="explode", slot="a#0"), {}, "no action"),
        (Action(op="advance", slot="a#0"), {}, "does not advance"),
        (Action(op="set_alpha", slot="a#0", alpha=0.5), {}, "does not move"),
    ],
)
def test_a_refusal_names_its_reason(action: Action, bounds: dict[str, Any], reason: str) -> None:
    assert reason in str(refusal(_state(SlotState("a#0", "a"), **bounds), action))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), None])
def test_an_alpha_that_is_none_is_refused(alpha: float | None) -> None:
    assert "not from 0 to 1" in str(refusal(_state(_holding()), Action(op="set_alpha", slot="a#0", alpha=alpha)))


def test_the_actions_keep_their_positions_through_a_run(play: Any) -> None:
    ran = play(load_policy("heuristic"), {"layers.0|mlp16": 0.5}).run()

    assert len({decided.observation.actions for decided in ran.decided}) == 1
