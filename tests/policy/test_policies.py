"""The policies: each by what it does to a run, and each the same every time."""

from typing import Any

import numpy as np
import pytest

from morphogen.consumers.policy import Limits, Outcome, Policy, PolicyError, load_policy, names
from morphogen.consumers.policy.policies import Bandit, Fixed, Heuristic
from morphogen.schemas import Action

HELPS = {"layers.0|norm": 0.02, "layers.0|mlp16": 0.5, "layers.1|mlp16": 0.1, "layers.2|rank1": -0.2}
PLAIN = ("none", "random", "fixed", "heuristic", "bandit")


def _done(ran: Any, op: str) -> list[tuple[int, Action]]:
    return [(one.observation.epoch, one.action) for one in ran.decided if one.action.op == op]


@pytest.mark.parametrize("name", PLAIN)
def test_a_policy_decides_the_same_every_time_and_draws_from_no_global_generator(play: Any, name: str) -> None:
    before = repr(np.random.get_state())
    runs = [play(load_policy(name, seed=7), HELPS).run() for _ in range(2)]

    assert [one.action for one in runs[0].decided] == [one.action for one in runs[1].decided]
    assert repr(np.random.get_state()) == before


@pytest.mark.parametrize("name", PLAIN)
def test_a_policy_proposes_only_what_is_legal(play: Any, name: str) -> None:
    ran = play(load_policy(name, seed=2), HELPS, limits=Limits(alphas=(0.25, 1.0), cooldown=0)).run()

    assert all(one.observation.legal[one.proposal.index] for one in ran.decided)
    assert all(one.verdict.approved for one in ran.decided)


@pytest.mark.parametrize("name", PLAIN)
def test_every_built_in_is_a_policy(name: str) -> None:
    policy = load_policy(name)

    assert isinstance(policy, Policy)
    assert policy.name == name
    assert name in names()


def test_none_never_acts(play: Any) -> None:
    assert not any(one.action.op != "wait" for one in play(load_policy("none"), HELPS).run().decided)


def test_random_depends_on_its_seed(play: Any) -> None:
    one, other = (play(load_policy("random", seed=seed), HELPS).run() for seed in (1, 2))

    assert [decided.action for decided in one.decided] != [decided.action for decided in other.decided]


def test_the_heuristic_waits_for_a_plateau_and_grows_where_the_host_squeezes_most(play: Any) -> None:
    ran = play(Heuristic(), HELPS).run()

    (epoch, first), *_ = _done(ran, "germinate")
    assert epoch == 8
    assert first == Action(op="germinate", slot="layers.0#0", blueprint="mlp16")
    assert len(_done(ran, "fossilize")) == 2


def test_a_seed_that_does_not_help_is_pruned_and_another_site_is_tried(play: Any) -> None:
    ran = play(Heuristic(), {"layers.0|mlp16": -0.2, "layers.1|mlp16": 0.3}).run()

    assert _done(ran, "prune")[0][1].slot == "layers.0#0"
    assert _done(ran, "germinate")[1][1].slot == "layers.1#0"
    assert _done(ran, "fossilize")[0][1].slot == "layers.1#0"


def test_the_control_for_size_takes_one_blueprint_anywhere(play: Any) -> None:
    chosen = [
        _done(play(Heuristic(seed, choose="random", only="mlp16"), HELPS).run(), "germinate") for seed in range(8)
    ]

    assert {action.blueprint for done in chosen for _, action in done} == {"mlp16"}
    assert len({action.slot for done in chosen for _, action in done}) == 3


def test_the_cheapest_go_first_and_by_turns(play: Any) -> None:
    done = _done(play(Heuristic(choose="cheapest"), dict.fromkeys(HELPS, 0.1)).run(), "germinate")

    assert {action.blueprint for _, action in done} == {"norm"}
    assert len({action.slot for _, action in done[:3]}) == min(3, len(done))


def test_a_plan_is_carried_out_once_each_in_order(play: Any) -> None:
    plan = [(20, "layers.1", "rank1"), (3, "layers.0#0", "mlp16")]
    ran = play(Fixed(plan=plan), {**HELPS, "layers.1|rank1": 0.1}).run()

    assert [(epoch, action.slot, action.blueprint) for epoch, action in _done(ran, "germinate")] == [
        (3, "layers.0#0", "mlp16"),
        (20, "layers.1#0", "rank1"),
    ]


def test_a_plan_that_cannot_be_read_is_told() -> None:
    with pytest.raises(PolicyError, match="epoch, place, blueprint"):
        Fixed(plan=[("soon", "layers.0", "mlp16")])
    with pytest.raises(PolicyError, match="no way to choose"):
        Heuristic(choose="best")


def _learn(policy: Bandit, ran: Any) -> None:
    for decided in ran.decided:
        if decided.action.op == "germinate":
            action = decided.action
            policy.learn(
                Outcome(
                    decision=decided.decision,
                    epoch=decided.observation.epoch,
                    observation=decided.observation.sha256,
                    index=decided.proposal.index,
                    action=action,
                    reward=HELPS.get(f"{action.slot.rpartition('#')[0]}|{action.blueprint}", 0.0),
                )
            )


def test_the_bandit_tries_every_arm_and_then_takes_the_one_that_pays(play: Any, tmp_path: Any) -> None:
    learner = Bandit(0)
    for seed in range(20):
        _learn(learner, play(learner, HELPS, seed=seed, epochs=40, health=False, limits=Limits(max_fossilized=1)).run())

    assert set(learner.arms) == {f"layers.{at}|{name}" for at in range(3) for name in ("norm", "rank1", "mlp16")}
    assert max(learner.arms, key=lambda arm: learner.arms[arm].pulls) == "layers.0|mlp16"
    judged = Bandit.restored(learner.state())
    ran = play(judged, HELPS).run()
    assert _done(ran, "germinate")[0][1] == Action(op="germinate", slot="layers.0#0", blueprint="mlp16")
    _learn(judged, ran)
    assert judged.state() == learner.state()


def test_the_bandits_bound_is_ucb1() -> None:
    policy = Bandit(0)
    for blueprint, rewards in (("x", (0.0, 1.0)), ("y", (0.5,))):
        for reward in rewards:
            policy.learn(_outcome(blueprint, reward))

    pulls = 3
    assert policy._bound(policy.arms["a|x"], pulls, 1.0) == pytest.approx(0.5 + (2 * np.log(3) / 2) ** 0.5)
    assert policy._bound(policy.arms["a|y"], pulls, 1.0) == pytest.approx(0.5 + (2 * np.log(3) / 1) ** 0.5)


def _outcome(blueprint: str, reward: float | None, op: str = "germinate", *, final: bool = True) -> Outcome:
    action = Action(op=op, slot="a#0", blueprint=blueprint)
    return Outcome("d", 1, "o", 1, action, reward=reward, final=final)


def test_the_bandit_learns_only_from_judged_germinations() -> None:
    policy = Bandit(0)
    for outcome in (
        _outcome("x", None),
        _outcome("x", float("nan")),
        _outcome("x", 1.0, "prune"),
        _outcome("x", 1.0, final=False),
    ):
        policy.learn(outcome)

    assert policy.experiences == 0


def test_a_bandit_that_knows_only_what_harms_waits(play: Any) -> None:
    policy = Bandit(0)
    for site in range(3):
        for name in ("norm", "rank1", "mlp16"):
            policy.learn(
                Outcome("d", 1, "o", 1, Action(op="germinate", slot=f"layers.{site}#0", blueprint=name), reward=-0.1)
            )

    ran = play(Bandit.restored(policy.state()), HELPS).run()

    assert not _done(ran, "germinate")
