"""What is learned from what was decided, and from what came of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.consumers.policy import FEATURES, Outcome, load_policy
from morphogen.consumers.policy.credit import credited
from morphogen.consumers.policy.gnn import Brain, Episode, Learned, Settings, Trainer
from morphogen.consumers.policy.gnn.advantage import advantages
from morphogen.consumers.policy.gnn.encode import encode
from morphogen.consumers.policy.gnn.episode import Lesson, Reward
from morphogen.consumers.policy.gnn.forward import think
from morphogen.consumers.policy.gnn.gain import Replay
from morphogen.consumers.policy.gnn.learned import Step
from morphogen.consumers.policy.gnn.network import Network
from morphogen.consumers.policy.gnn.ppo import improve
from morphogen.schemas import Action, Event, PolicyUpdated

from .garden import GAINS, Garden
from .graphs import graph


def outcome(reward: float | None = 0.1, **changes: Any) -> Outcome:
    """The outcome of a germination."""
    told = {
        "decision": "d", "epoch": 3, "observation": "o", "index": 1, "reward": reward, "contribution": 0.2,
        "action": Action(op="germinate", slot="a#0", blueprint="norm"), "stage": "fossilized", "epochs": 7,
        "terms": {"gain": 0.15, "rent": -0.05},
    }  # fmt: skip
    return Outcome(**{**told, **changes})


def step(seed: int, epoch: int, index: int = 1, logprob: float | None = None) -> Step:
    """A step whose recorded log-probability is the true one, unless another is given."""
    observation = graph(2, seed, legal=1.0, epoch=epoch)
    policy = Learned(brain=Brain.new(0), explore=True, remember=True)
    proposal = policy.decide(observation)
    log = float(np.log(max(1e-9, proposal.scores[index]))) if logprob is None else logprob
    return replace(policy.steps[0], index=index, logprob=log)


@settings(max_examples=25)
@given(
    st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20),
    st.integers(0, 1000),
    st.floats(0.5, 1.0),
    st.floats(0.0, 1.0),
)
def test_one_epoch_apart_the_advantages_are_torchrls(
    paid: list[float], seed: int, discount: float, trace: float
) -> None:
    from torchrl.objectives.value.functional import generalized_advantage_estimate

    values = np.random.default_rng(seed).normal(size=len(paid)).astype(np.float32)
    found, wanted = advantages(np.arange(len(paid)), np.array(paid, np.float32), values, discount=discount, trace=trace)
    done = torch.zeros(len(paid), 1, dtype=torch.bool)
    done[-1] = True
    following = torch.tensor([*values[1:], 0.0])[:, None]
    theirs = generalized_advantage_estimate(
        discount, trace, torch.tensor(values)[:, None], following, torch.tensor(paid)[:, None], done
    )

    np.testing.assert_allclose(found, theirs[0][:, 0].numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(wanted, theirs[1][:, 0].numpy(), rtol=1e-4, atol=1e-4)


def test_epochs_without_a_choice_discount_as_well() -> None:
    found, _ = advantages(
        np.array([0, 10]), np.array([0.0, 1.0], np.float32), np.zeros(2, np.float32), discount=0.9, trace=1.0
    )

    assert found.tolist() == pytest.approx([0.9**10, 1.0])


def test_a_reward_is_paid_to_the_last_decision_before_it_was_known() -> None:
    steps = tuple(step(at, epoch) for at, epoch in enumerate((2, 3, 7, 20)))
    paid = Episode(steps, (Reward(steps[0].observation, 1, 0.5, 6),)).paid(0.9)

    assert paid.tolist() == pytest.approx([0, 0, 0.5 * 0.9, 0])


def test_what_pays_becomes_likelier_and_what_costs_less_likely() -> None:
    brain = Brain.new(0, settings=Settings(rate=1e-2, max_kl=1.0))
    network = Network(brain.weights, brain.settings)
    optimizer = torch.optim.Adam(network.acting(), lr=1e-2)
    good, bad = ([step(at, 1, index) for at in range(4)] for index in (1, 7))
    episodes = [
        Episode((one,), (Reward(one.observation, one.index, paid, 0),))
        for many, paid in ((good, 1.0), (bad, -1.0))
        for one in many
    ]
    told = improve(network, episodes, brain.scale, optimizer, 0.0, 1.0)
    after = Learned(brain=replace(brain, weights=network.weights()), explore=True)

    for many, better in ((good, True), (bad, False)):
        for at, one in enumerate(many):
            chance = after.decide(graph(2, at, legal=1.0, epoch=1)).scores[one.index]
            assert one.logprob is not None
            assert (chance > np.exp(one.logprob)) == better
    assert np.isfinite(list(told.values())).all()


def test_the_first_pass_starts_from_the_chances_that_were_recorded() -> None:
    brain = Brain.new(0, settings=Settings(passes=1))
    network = Network(brain.weights, brain.settings)
    steps = tuple(step(at, at) for at in range(5))
    told = improve(network, [Episode(steps, ())], brain.scale, torch.optim.Adam(network.acting(), lr=0.0), 0.0, 1.0)

    assert told["kl"] == pytest.approx(0, abs=1e-5)
    assert told["clipped"] == 0


def test_a_replay_brings_up_more_often_what_is_predicted_badly() -> None:
    replay = Replay(Settings(), 0)
    seen = encode(graph(1), FEATURES)
    replay.add([Lesson(seen, 1, 0.0) for _ in range(10)])
    replay.priorities[:] = 0.01
    replay.priorities[3] = 1.0
    places, weights = replay.draw(400)

    assert (places == 3).sum() > 150
    assert weights[places == 3].max() < weights[places != 3].min()


def test_a_replay_forgets_the_oldest() -> None:
    replay = Replay(Settings(capacity=4), 0)
    seen = encode(graph(1), FEATURES)
    for reward in range(6):
        replay.add([Lesson(seen, 1, float(reward))])

    assert [one.reward for one in replay.lessons] == [2, 3, 4, 5]
    assert len(replay.priorities) == 4


def test_members_agree_where_much_is_known_and_less_where_nothing_is() -> None:
    brain = Brain.new(0)
    network, replay = Network(brain.weights, brain.settings), Replay(brain.settings, 0)
    seen = encode(graph(3, 1, legal=1.0), FEATURES)
    replay.add([Lesson(seen, 1 + at % 2, float(at % 2)) for at in range(32)])
    optimizer = torch.optim.AdamW(network.gaining(), lr=3e-3)
    for _ in range(2):
        told = replay.train(network, brain.scale, 0.5, 0.5, optimizer)
    thought = think(network.weights(), brain.settings, brain.scale, seen)

    assert told["gain_error"] < 0.3
    assert thought.gains[:, 2].mean() > 0.5 > -0.5 > thought.gains[:, 1].mean()
    assert thought.gains[:, 1:3].std(axis=0).mean() < 0.5 * thought.gains[:, 17:21].std(axis=0).mean()


def test_against_a_control_the_gain_is_shared_and_rent_is_paid() -> None:
    one = outcome(observation="one", contribution=0.3)
    other = outcome(observation="other", contribution=0.1)
    gone = outcome(observation="gone", contribution=0.5, stage="pruned", terms={"gain": 0.0, "churn": -0.01})

    assert credited([one, other, gone], 0.2) == pytest.approx(
        {"one": 0.125 - 0.05, "other": 0.075 - 0.05, "gone": -0.01}
    )
    assert credited([one], None) == {}
    assert credited([one], float("nan")) == {}


def test_holding_a_run_to_ransom_pays_nothing_against_a_control() -> None:
    found = credited([outcome(contribution=0.9)], -0.1)

    assert found["o"] == pytest.approx(-0.15)


@pytest.mark.parametrize(
    ("stage", "contribution", "lesson"),
    [
        ("fossilized", 0.2, True),
        ("holding", None, True),
        ("pruned", -0.1, True),
        ("pruned", 0.2, False),
        ("pruned", None, False),
    ],
)
def test_a_seed_that_was_given_up_says_nothing_of_what_was_germinated(
    stage: str, contribution: float | None, lesson: bool
) -> None:
    policy = Learned(brain=Brain.new(0), explore=True, remember=True)
    observation = graph(2, 0, legal=1.0)
    policy.decide(observation)
    policy.learn(outcome(observation=observation.sha256, index=1, stage=stage, contribution=contribution))

    assert len(Episode.of(policy).lessons) == lesson


def test_the_log_teaches_what_the_policy_remembers() -> None:
    garden = Garden(epochs=30)
    policy = Learned(4, explore=True, remember=True)
    garden.play(policy, 4)
    read = Episode.read(garden.events, policy.brain.columns)
    own = Episode.of(policy)

    assert [one.observation for one in read.steps] == [one.observation for one in own.steps]
    assert [one.logprob for one in read.steps] == [one.logprob for one in own.steps]
    assert read.rewards == own.rewards
    assert len(read.rewards) > 0
    assert not policy.steps
    assert not policy.outcomes


class Log:
    """Keeps events."""

    def __init__(self) -> None:
        self.events: list[PolicyUpdated] = []

    def event(self, event: Event, *, step: int | None = None, cause: str | None = None) -> str | None:
        """Keep an event."""
        assert isinstance(event, PolicyUpdated)
        self.events.append(event)
        return None


def test_a_training_is_recorded_and_repeats_to_the_bit(tmp_path: Any) -> None:
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    versions = []
    for name in ("one", "two"):
        log = Log()
        trainer = Trainer(seed=1, run=log, path=tmp_path / name, keep=True)
        trainer.fit(lambda policy, seed: Garden(epochs=20).play(policy, seed), range(3))
        versions.append([event.policy_version for event in log.events])
        assert [event.previous for event in log.events][1:] == versions[-1][:-1]
        assert all(load_policy(str(tmp_path / f"{version}.safetensors")).version == version for version in versions[-1])
    schooling = trainer.brain.schooling

    assert versions[0] == versions[1]
    assert (schooling.episodes, schooling.updates) == (3, 3)
    assert log.events[-1].experiences == schooling.experiences == sum(event.samples for event in log.events)
    assert {"policy_loss", "kl", "gain_error", "entropy"} <= set(log.events[-1].measured)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]  # type: ignore[index]


def test_an_earlier_checkpoint_stays_until_something_is_learned(tmp_path: Any) -> None:
    path = tmp_path / "policy.safetensors"
    Trainer(seed=7, path=path)
    before = path.read_bytes()

    def interrupted(policy: Any, seed: int) -> None:
        raise KeyboardInterrupt

    trainer = Trainer(seed=1, path=path)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(interrupted, range(3))
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]

    trainer.fit(
        lambda policy, seed: Garden(epochs=20).play(policy, seed), range(0)
    )  # and where there is nothing to learn
    assert load_policy(str(path)).version == trainer.brain.version
    assert path.read_bytes() != before


def test_no_more_experiences_than_allowed_are_learned_from() -> None:
    trainer = Trainer(seed=0)
    trainer.fit(lambda policy, seed: Garden(epochs=20).play(policy, seed), range(50), limit=23)

    assert trainer.brain.schooling.experiences == 23


SMALL = {site: {name: row[name] for name in ("norm", "mlp64")} for site, row in GAINS.items()}


def world() -> Garden:
    """Six arms, of which two are worth growing."""
    return Garden(gains=SMALL, epochs=26)


def total(make: Any, seeds: Sequence[int]) -> float:
    """The mean gain of policies that neither explore nor learn."""
    return float(np.mean([world().play(make(seed), seed) for seed in seeds]))


def test_with_two_hundred_experiences_it_grows_as_much_as_the_bandit_and_more_than_before() -> None:
    judged = range(5000, 5004)
    trainer = Trainer(seed=0)
    trainer.fit(lambda policy, seed: world().play(policy, seed), range(100), limit=220)
    bandit = load_policy("bandit", 0)
    for seed in range(trainer.brain.schooling.episodes):
        world().play(bandit, seed)
    state = {"arms": bandit.arms, "explore": 0.0, "keep_learning": False}  # type: ignore[attr-defined]
    learned = total(lambda seed: trainer.policy(seed, explore=False), judged)

    assert learned >= 0.8 * SMALL["0"]["mlp64"]
    assert learned > total(lambda seed: load_policy("random", seed), judged)
    assert learned >= total(lambda seed: load_policy("bandit", seed, **state), judged) - 0.02
