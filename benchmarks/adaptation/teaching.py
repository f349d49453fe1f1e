"""Training the policies, on splits that are not those they are judged on; each training is a recorded run.

Each episode has a control: the same split, weights and batches without growth. What the episode ends with beyond its
control, on the validation part, is what its seeds are credited; a policy in use has to do with estimates of that.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from arms import growing
from hosts import HOSTS
from training import train

import morphogen
from morphogen import Event
from morphogen.bus.settings import Settings
from morphogen.consumers.policy import Observation, Outcome, Policy, Proposal, credited, load_policy, save_policy
from morphogen.schemas import PolicyUpdated

FIRST = 500  # the splits that policies learn on begin here; those that arms are judged on begin at 0
EXPLORE = 0.5  # of the bandit: half of UCB1's bound, since its pulls are few
EXPERIENCES = 999  # decisions with a choice that the graph network may learn from


class Taught(Event, type="experiment.taught", version=1):
    """The training of a policy ended; `setting` names everything that it depended on."""

    policy: str
    host: str
    setting: str
    episodes: int
    experiences: int
    checkpoint: str  # path
    policy_version: str  # sha256 of the checkpoint


class Schooled(Event, type="experiment.schooled", version=1):
    """An episode ended with so much more validation accuracy than its control."""

    policy: str
    host: str
    seed: int
    gained: float


def teach(settings: Settings, kind: str, host_name: str, setting: str, episodes: int, folder: Path) -> Taught:
    """Train a policy of a kind (bandit, gnn-ppo) on `episodes` splits of a host, and return what the log says of it."""
    name = f"{host_name}-teach-{kind}"
    path = folder / f"{host_name}-{kind}-{setting}.safetensors"
    with morphogen.record(
        name, config={"policy": kind, "host": host_name, "setting": setting}, settings=settings
    ) as run:
        seen, version = (_bandit if kind == "bandit" else _network)(settings, host_name, episodes, path, run)
        taught = Taught(
            policy=kind, host=host_name, setting=setting, episodes=episodes, experiences=seen, checkpoint=str(path),
            policy_version=version,
        )  # fmt: skip
        run.event(taught)
    return taught


class Paired:
    """A policy in school: outcomes wait until the run can be compared with its control, and are credited then."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.name, self.version = policy, policy.name, policy.version
        self._outcomes: list[Outcome] = []

    def decide(self, observation: Observation) -> Proposal:
        """Decide as the policy does."""
        return self.policy.decide(observation)

    def learn(self, outcome: Outcome) -> None:
        """Keep what came of a germination."""
        if outcome.action.op == "germinate" and outcome.final:
            self._outcomes.append(outcome)

    def settle(self, gained: float) -> None:
        """Let the policy learn, given what the run has gained over its control."""
        worth = credited(self._outcomes, gained)
        for outcome in self._outcomes:
            self.policy.learn(replace(outcome, reward=worth.get(outcome.observation, outcome.reward)))
        self._outcomes.clear()


def episode(settings: Settings, kind: str, host_name: str, seed: int, policy: Policy) -> float:
    """Let a policy decide for one run of a host, and return the validation accuracy gained over the control.

    The test part stays sealed.
    """
    host = HOSTS[host_name]
    name = f"{host_name}-episode-{kind}-{seed}"
    with morphogen.record(name, config={"policy": kind, "host": host_name, "seed": seed}, settings=settings) as run:
        grown = train(host, seed, run=run, begin=growing(policy, host, seed, label=f"teach {kind}"))
        gained = (grown.validated.accuracy or 0.0) - (train(host, seed).validated.accuracy or 0.0)
        run.event(Schooled(policy=kind, host=host_name, seed=seed, gained=gained))
    return gained


def _bandit(settings: Settings, host: str, episodes: int, path: Path, run: Any) -> tuple[int, str]:
    from morphogen.consumers.policy.policies import Bandit

    policy = load_policy("bandit", 0, explore=EXPLORE)
    assert isinstance(policy, Bandit)
    version: str | None = None
    for number in range(episodes):
        before = policy.experiences
        paired = Paired(policy)
        paired.settle(episode(settings, "bandit", host, FIRST + number, paired))
        previous, version = version, save_policy(policy, path)
        learned = PolicyUpdated(
            policy="bandit", policy_version=version, previous=previous, samples=policy.experiences - before,
            experiences=policy.experiences, checkpoint=path.as_uri(),
        )  # fmt: skip
        run.event(learned, step=number)
    assert version is not None, "a policy is taught in at least one episode"
    return policy.experiences, version


def _network(settings: Settings, host: str, episodes: int, path: Path, run: Any) -> tuple[int, str]:
    from morphogen.consumers.policy.gnn import Trainer

    def environment(policy: Policy, seed: int) -> float:
        return episode(settings, "gnn-ppo", host, seed, policy)

    trainer = Trainer(seed=0, run=run, path=path)
    brain = trainer.fit(environment, range(FIRST, FIRST + episodes), limit=EXPERIENCES)
    return brain.schooling.experiences, str(brain.version)
