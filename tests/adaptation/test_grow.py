"""A loop that calls `epoch()` grows its model, and nothing that goes wrong in growth reaches the loop."""

import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from morphogen.consumers.adaptation import GrowthError, grow
from morphogen.consumers.executor import fold_all
from morphogen.consumers.policy import PolicyError, Proposal, load_policy
from morphogen.kernels.slots import SlotError
from morphogen.schemas import (
    Action,
    AdaptationFinished,
    AdaptationStarted,
    BlueprintMeasured,
    BlueprintProposed,
    DecisionOutcome,
    DecisionProposed,
    DecisionVerdict,
    EpochMeasured,
    Observed,
    SlotContribution,
    SlotFailed,
    SlotGerminated,
    SlotRefused,
    SlotStageChanged,
)

from .planned import ANY_GAIN, QUICK, Planned, kept


def test_a_seed_is_germinated_raised_kept_and_judged_and_each_step_is_caused_by_the_one_before(loop: Any) -> None:
    one = loop()
    policy = kept()
    grower = one.grow(policy=policy, budget=ANY_GAIN, config={"ramp_epochs": 1.0})
    done: list[Action] = []
    one.epochs(10, lambda loss: done.append(grower.epoch(train_loss=loss)))
    grower.finish(test_accuracy=0.5)
    assert [action.op for action in done if action.op != "wait"] == ["germinate", "advance", "advance", "fossilize"]
    causes = {name: (type(event), cause) for event, _, cause, name in one.run.told}
    (germinated,) = [(cause, name) for event, _, cause, name in one.run.told if type(event) is SlotGerminated]
    chain, at = [], germinated[0]
    while at is not None:
        kind, at = causes[at]
        chain.append(kind)
    assert chain == [DecisionVerdict, DecisionProposed, Observed, EpochMeasured]
    outcomes = one.run.all(DecisionOutcome)
    assert [outcome.final for outcome in outcomes] == [False] * 4 + [True] * 4
    owner = [outcome for outcome in outcomes if outcome.reward is not None]
    assert len(owner) == 2
    assert owner[-1].contribution is not None
    assert owner[-1].terms["gain"] is not None
    assert [outcome.action.op for outcome in policy.learned[:1]] == ["germinate"]
    assert policy.learned[0].seen is not None
    (finished,) = one.run.all(AdaptationFinished)
    assert (finished.epochs, finished.germinated, finished.fossilized) == (10, 1, 1)
    assert finished.measured == {"test_accuracy": 0.5}
    assert finished.params_grown == grower.params_grown > 0
    assert one.run.all(SlotFailed) == []


def test_growth_without_a_decision_leaves_every_bit_and_every_batch_as_it_was(loop: Any) -> None:
    grown, bare = loop(), None
    grower = grown.grow(policy="none")
    grown.epochs(4, lambda loss: grower.epoch(train_loss=loss))
    grower.finish()
    after = torch.rand(3)
    bare = loop()
    bare.epochs(4)
    assert torch.equal(after, torch.rand(3))
    state = grown.state()
    assert list(state) == list(bare.state())
    assert all(torch.equal(state[name], value) for name, value in bare.state().items())
    assert type(grown.model[0]) is nn.Linear


def test_a_seed_that_is_held_at_alpha_zero_changes_no_bit_of_the_host(loop: Any) -> None:
    sham = loop()
    grower = sham.grow(policy=Planned({1: ("germinate", "0#0", "mlp16")}), budget=QUICK)
    sham.epochs(6, lambda loss: grower.epoch(train_loss=loss))
    bare = loop()
    bare.epochs(6)
    assert grower.params_grown > 0
    state = sham.state()
    assert all(torch.equal(state[name], value) for name, value in bare.state().items())


def test_what_the_loop_measured_itself_is_not_measured_again(loop: Any) -> None:
    one = loop()
    grower = one.grow(policy="none")
    one.epochs(2, lambda loss: grower.epoch(train_loss=loss, val_loss=torch.tensor(0.5), val_accuracy=0.25))
    assert one.evaluations == 0
    assert [(event.val_loss, event.val_accuracy) for event in one.run.all(EpochMeasured)] == [(0.5, 0.25)] * 2
    grower.epoch()
    assert one.evaluations == 1


def test_without_a_way_to_evaluate_nothing_is_kept(loop: Any) -> None:
    one = loop()
    grower = one.grow(policy=kept(), budget=ANY_GAIN, config={"ramp_epochs": 1.0}, evaluate=None)
    one.epochs(10, lambda loss: grower.epoch(train_loss=loss))
    grower.finish()
    assert one.run.all(SlotContribution) == []
    assert one.run.all(AdaptationFinished)[0].fossilized == 0


def test_shapes_come_from_the_first_forward_pass_where_no_example_is_given(loop: Any) -> None:
    one = loop()
    grower = one.grow(policy=kept(), example=None, budget=QUICK)
    assert one.run.told == []
    one.epochs(3, lambda loss: grower.epoch(train_loss=loss))
    assert type(one.run.told[0][0]) is AdaptationStarted
    assert one.run.all(AdaptationStarted)[0].sites[0].in_shape == [6]
    assert len(one.run.all(SlotGerminated)) == 1


def test_decisions_are_taken_every_so_many_epochs(loop: Any) -> None:
    one = loop()
    grower = one.grow(policy="none", every=3)
    one.epochs(7, lambda loss: grower.epoch(train_loss=loss))
    assert [event.epoch for event in one.run.all(Observed)] == [2, 5]


def test_the_menu_is_names_or_blueprints_or_a_function(loop: Any) -> None:
    from morphogen.kernels import blueprints

    for menu in (["rank1"], lambda site: {"rank1": blueprints.menu(site)["rank1"]}):
        one = loop()
        one.grow(policy="none", menu=menu)
        offered = one.run.all(AdaptationStarted)[0].config["menu"]
        assert {dish["name"] for dishes in offered.values() for dish in dishes} == {"rank1"}
    with pytest.raises(GrowthError, match="rank99"):
        loop().grow(menu=["rank99"])
    with pytest.raises(GrowthError, match="rank99"):
        loop().grow(menu=["rank99"], example=None)  # the shapes are not known yet, the names are


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"policy": "nobody"}, PolicyError, "there is no policy"),
        ({"policy": 7}, PolicyError, "no policy"),
        ({"sites": "none.such"}, SlotError, "none.such"),
        ({"config": {"rampe": 1}}, GrowthError, "no 'rampe'"),
        ({"config": {"ramp_epochs": "long"}}, GrowthError, "does not fit"),
        ({"config": {"blend": "mix"}}, GrowthError, "blend"),
        ({"budget": {"max_seeds": 1}}, GrowthError, "no 'max_seeds'"),
        ({"budget": 3}, GrowthError, "mapping"),
        ({"every": 0}, GrowthError, "every"),
        ({"slots": 0}, SlotError, "slot"),
        ({"run": None}, GrowthError, "run is expected"),
        ({"policy": "remote"}, GrowthError, "recorded run"),
        ({"reward": {"gold": 1.0}}, GrowthError, "gold"),
        ({"reward": {"gain": math.nan}}, PolicyError, "reward: gain is a finite number"),
        ({"budget": {"max_active": -1}}, PolicyError, "max_active is 0 or more"),
        ({"budget": {"max_params": -5}}, PolicyError, "max_params is 0 or more"),
        ({"budget": {"min_contribution": math.nan}}, PolicyError, "min_contribution is a number"),
        ({"budget": {"min_contribution": math.inf}}, PolicyError, "min_contribution is a finite number"),
        ({"budget": {"explosion": math.nan}}, PolicyError, "explosion is a number"),
        ({"budget": {"explosion": 0.0}}, PolicyError, "explosion is above 0"),
        ({"budget": {"ramp": "zigzag"}}, PolicyError, "ramp is one of linear, cosine, sigmoid"),
        ({"budget": {"ramp_steps": -4}}, PolicyError, "ramp_steps is 0 or more"),
        ({"budget": {"ramp_steps": 10**20}}, PolicyError, "ramp_steps is"),
        ({"budget": {"alphas": (0.5, 2.0)}}, PolicyError, "alphas is from 0 to 1"),
        ({"budget": {"alphas": (math.nan,)}}, PolicyError, "alphas is from 0 to 1"),
        ({"config": {"backoff": (0.1, -1.0)}}, GrowthError, "backoff is seconds"),
        ({"config": {"window": 2}}, GrowthError, "window is 3 or more"),
        ({"config": {"plateau_window": 0}}, GrowthError, "plateau_window is 1 or more"),
        ({"config": {"ramp_epochs": math.nan}}, GrowthError, "ramp_epochs is 0 or more"),
        ({"every": "2"}, GrowthError, "every must be a whole number"),
        ({"every": math.nan}, GrowthError, "every must be a whole number"),
        ({"seed": -1}, GrowthError, "seed must be a whole number"),
        ({"seed": 2**70}, GrowthError, "seed must be a whole number"),
        ({"evaluate": 0.3}, GrowthError, "evaluate is a function"),
        ({"label": 3}, GrowthError, "a label is text"),
        ({"menu": {"mine": 3}}, GrowthError, "'mine' is a blueprint or the path"),
        ({"menu": lambda site: None}, GrowthError, "the menu's function gave None"),
    ],
)
def test_what_cannot_begin_is_refused_in_one_line(loop: Any, options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        loop().grow(**options)
    assert "\n" not in str(raised.value)


def test_an_optimizer_of_another_kind_is_refused(loop: Any) -> None:
    one = loop()
    with pytest.raises(GrowthError, match="optimizer"):
        grow(one.run, one.model, object())  # type: ignore[arg-type]


class Hostile:
    name = "hostile"
    version = None

    def __init__(self) -> None:
        self.calls = 0

    def decide(self, observation: Any) -> Any:
        self.calls += 1
        answers = [
            None, "prune", Proposal(10**9), Proposal(-1), Proposal(True), Proposal(0, scores=[math.nan] * 3),
            Proposal(len(observation.actions) - 1), Proposal(1, reason="x" * 10**5), Proposal(0.5),  # type: ignore[arg-type]
        ]  # fmt: skip
        if self.calls % 4 == 0:
            raise RuntimeError("no\nreason")
        return answers[self.calls % len(answers)]

    def learn(self, outcome: Any) -> None:
        raise ValueError("never")


def test_a_hostile_policy_does_not_reach_the_loop(loop: Any) -> None:
    one = loop()
    grower = one.grow(policy=Hostile(), budget={**QUICK, "max_active": 3, "cooldown": 0})
    one.epochs(25, lambda loss: grower.epoch(train_loss=loss))
    grower.finish()
    assert all(torch.isfinite(value).all() for value in one.state().values())
    assert len(one.run.all(DecisionProposed)) == 25


def test_a_loss_that_still_has_its_graph_is_a_number_without_a_warning(loop: Any) -> None:
    one = loop()
    grower = one.grow(policy="none")
    grower.epoch(train_loss=(next(one.model.parameters()) * 2).sum())  # warnings are errors in these tests
    grower.finish(score=next(one.model.parameters()).sum())
    (epoch,) = one.run.all(EpochMeasured)
    assert isinstance(epoch.train_loss, float)


def test_a_policy_that_wants_to_exit_does_not_take_the_training_with_it(loop: Any) -> None:
    one = loop()

    class Exits(Planned):
        def decide(self, observation: Any) -> Proposal:
            raise SystemExit(3)

    grower = one.grow(policy=Exits({}))
    one.epochs(2, lambda loss: grower.epoch(train_loss=loss))
    assert [event.reason for event in one.run.all(DecisionProposed)] == ["policy failed: SystemExit: 3"] * 2


def test_a_policy_that_exits_as_it_learns_does_not_take_the_training_with_it(loop: Any) -> None:
    class Leaves(Hostile):
        def decide(self, observation: Any) -> Any:
            return Proposal(observation.index("germinate") or 0)

        def learn(self, outcome: Any) -> None:
            raise SystemExit(3)

    one = loop()
    grower = one.grow(policy=Leaves(), config={"stage_timeout": 1})
    one.epochs(6, lambda loss: grower.epoch(train_loss=loss))
    grower.finish()
    assert any("did not learn: SystemExit" in event.message for event in one.run.all(SlotFailed))
    assert one.run.all(AdaptationFinished)


def test_two_growers_of_one_model_leave_it_and_its_optimizer_whole(loop: Any) -> None:
    one, other = loop(), loop().run
    growers = [
        one.grow(
            run=run,
            policy=load_policy("fixed", plan=[(1, "0", blueprint)]),
            budget={"min_training": 1, "min_contribution": -1e9},
            config={"auto": True, "ramp_epochs": 0.0},
        )
        for blueprint, run in (("mlp16", one.run), ("mlp64", other))
    ]
    one.epochs(8, lambda loss: [grower.epoch(train_loss=loss) for grower in growers])
    for grower in growers:
        grower.finish()
    held = [id(p) for group in one.optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in one.model.parameters())
    assert [grower.slots["0#0"].stage for grower in growers] == ["fossilized", "dormant"]
    assert any("other Slots of this model" in event.reason for event in other.all(SlotRefused))


def test_what_a_policy_was_made_with_stands_in_the_log(loop: Any) -> None:
    told = {}
    for name, options in (
        ("fixed", {"plan": [(2, "0", "mlp16")], "judge": False}),
        ("heuristic", {"choose": "cheapest", "only": "mlp16"}),
        ("bandit", {"explore": 0.5}),
        ("random", {}),
    ):
        one = loop()
        one.grow(policy=load_policy(name, **options))
        (started,) = one.run.all(AdaptationStarted)
        told[name] = started.config["policy_options"]
        again = load_policy(name, **told[name])
        assert getattr(again, "options", {}) == told[name], "it can be made again of that"
    assert told == {
        "fixed": {"plan": [[2, "0", "mlp16"]], "judge": False},
        "heuristic": {"choose": "cheapest", "only": ["mlp16"], "wait_for_plateau": True},
        "bandit": {"explore": 0.5, "wait_for_plateau": True, "keep_learning": True},
        "random": {},
    }


def test_latency_is_in_the_reward_where_it_was_measured_and_only_there(loop: Any) -> None:
    costs = {}
    for rounds in (0, 3):
        one = loop()

        grower = one.grow(policy=kept(), budget=ANY_GAIN, config={"ramp_epochs": 1.0, "latency_rounds": rounds})
        one.epochs(10, lambda loss, grower=grower: grower.epoch(train_loss=loss))
        (seedling,) = grower._executor.standing.values()
        grower.finish()
        costs[rounds] = (
            seedling.latency,
            [event.terms["latency"] for event in one.run.all(DecisionOutcome) if event.terms],
        )
    assert costs[0][0] is None and set(costs[0][1]) == {0.0}
    assert isinstance(costs[3][0], float)
    expected = -0.02 * math.log2(1 + max(0.0, costs[3][0]))
    assert costs[3][1][-1] == pytest.approx(expected)


def test_a_recorder_that_raises_does_not_reach_the_loop(loop: Any, caplog: pytest.LogCaptureFixture) -> None:
    one = loop()

    class Full:
        def event(self, event: Any, *, step: int | None = None, cause: str | None = None) -> str | None:
            if not isinstance(event, AdaptationStarted):
                raise OSError("disk full")
            return None

    grower = one.grow(run=Full(), policy=kept(), budget=QUICK)
    one.epochs(4, lambda loss: grower.epoch(train_loss=loss))
    grower.finish()
    bare = loop()
    bare.epochs(4)
    assert all(torch.equal(one.state()[name], value) for name, value in bare.state().items())


def test_a_seed_that_had_no_say_by_the_end_is_taken_out(loop: Any) -> None:
    one = loop()
    grower = one.grow(policy=Planned({1: ("germinate", "0#0", "mlp16")}), budget=QUICK)
    one.epochs(3, lambda loss: grower.epoch(train_loss=loss))
    assert grower.params_grown > 0
    grower.finish()
    assert grower.params_grown == 0
    assert type(one.model[0]) is nn.Linear
    assert [event.to_stage for event in one.run.all(SlotStageChanged)][-2:] == ["pruned", "embargoed"]
    assert [outcome.stage for outcome in one.run.all(DecisionOutcome)] == ["pruned"]
    grower.finish()
    assert len(one.run.all(AdaptationFinished)) == 1
    grower.epoch()


def test_a_dry_run_keeps_a_seed_that_would_explode_away_and_leaves_the_model_alone(loop: Any) -> None:
    for bound, grown in ((1e-9, 0), (1e9, 1)):
        one = loop()
        grower = one.grow(
            policy=Planned({1: ("germinate", "0#0", "mlp16")}),
            budget=QUICK,
            config={"dry_run": True, "dry_run_bound": bound},
        )
        one.epochs(3, lambda loss, grower=grower: grower.epoch(train_loss=loss))
        assert len(one.run.all(SlotGerminated)) == grown
        guards = [guard for event in one.run.all(DecisionVerdict) for guard in event.guards if guard.guard == "dry_run"]
        assert [guard.passed for guard in guards] == [bool(grown)]
        bare = loop()
        bare.epochs(3)
        assert all(torch.equal(one.state()[name], value) for name, value in bare.state().items())


def test_a_compiled_looking_wrapper_of_the_optimizer_is_seen_through(loop: Any) -> None:
    one = loop()

    class Wrapped:
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer

    grower = grow(one.run, one.model, Wrapped(one.optimizer), policy=kept(), example=one.train[0][:2], budget=QUICK)  # type: ignore[arg-type]
    one.epochs(3, lambda loss: grower.epoch(train_loss=loss))
    assert len(one.optimizer.param_groups[0]["params"]) == len(list(one.model.parameters())) > 4


def test_the_same_run_twice_tells_the_same_story(loop: Any) -> None:
    stories = []
    for _ in range(2):
        one = loop()
        grower = one.grow(policy="random", seed=4, budget={**QUICK, "max_active": 2, "cooldown": 0})
        one.epochs(12, lambda loss, grower=grower: grower.epoch(train_loss=loss))
        grower.finish()
        stories.append(one)
    first, second = ([event for event, *_ in one.run.told if type(event) is not DecisionProposed] for one in stories)
    assert [event.encode() for event in first] == [event.encode() for event in second]
    assert any(type(event) is SlotGerminated for event in first)
    assert all(torch.equal(a, b) for a, b in zip(stories[0].state().values(), stories[1].state().values(), strict=True))


def test_the_events_fold_to_what_stands(loop: Any) -> None:
    one = loop()
    grower = one.grow(policy="random", seed=4, slots=2, budget={**QUICK, "max_active": 3, "cooldown": 0})
    one.epochs(15, lambda loss: grower.epoch(train_loss=loss))
    again = fold_all(event for event, *_ in one.run.told)
    for slot_id, slot in grower.slots.items():
        assert (again[slot_id].stage, again[slot_id].alpha) == (slot.stage, slot.alpha)
        assert again[slot_id].seed == slot.seed_id
    assert one.run.all(SlotRefused) == []


def test_the_generator_proposes_and_what_it_foretold_is_compared_with_what_is(loop: Any) -> None:
    one = loop()
    grower = one.grow(policy="random", seed=3, menu="proposed", budget={**QUICK, "cooldown": 0, "max_params": 900})
    one.epochs(6, lambda loss: grower.epoch(train_loss=loss))
    proposed = {event.blueprint: event for event in one.run.all(BlueprintProposed)}
    measured = one.run.all(BlueprintMeasured)
    assert {event.site for event in proposed.values()} <= {"0", "3"}
    assert len(measured) == len(one.run.all(SlotGerminated)) > 0
    for event in measured:
        foretold = proposed[event.blueprint]
        assert event.built
        assert (event.params, event.flops, event.request) == (foretold.params, foretold.flops, foretold.request)
        assert event.params <= 900
    offered = one.run.all(AdaptationStarted)[0].config["menu"]["0"]
    assert len({dish["name"] for dish in offered}) == len(offered) > 3


def test_without_torch_one_line_says_what_to_install(tmp_path: Any) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')")
    program = "import morphogen\ntry:\n    morphogen.grow()\nexcept ImportError as error:\n    print(type(error).__name__, error)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.stdout == "MissingExtra grow needs torch: pip install 'morphogen[adapt]'\n"
