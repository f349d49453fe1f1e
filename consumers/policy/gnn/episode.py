"""What a run taught: its decisions with a choice, and the rewards that came of them.

Two ways lead here: from a policy that has just decided for a run, and from the log of any run, whoever decided.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from morphogen.schemas import DecisionOutcome, DecisionProposed, Event, Observed

from ..credit import credited
from ..protocol import Observation
from ..reward import STANDING
from .brain import Brain
from .encode import Encoded, encode
from .forward import GERMINATE
from .learned import Learned, Step

if TYPE_CHECKING:
    from .encode import Floats


@dataclass(frozen=True)
class Reward:
    """What one decision was worth, and how many epochs later that was first said.

    `judged` says that it was a seed's own doing: one that was pruned before it was measured, or although it helped,
    says nothing of what was germinated.
    """

    observation: str
    index: int
    reward: float
    epochs: int
    judged: bool = True


@dataclass(frozen=True, eq=False)
class Lesson:
    """A germination and its reward."""

    seen: Encoded
    index: int
    reward: float


@dataclass(frozen=True, eq=False)
class Episode:
    """The decisions of one run in order.

    `version` is that of the policy, where one and the same decided all of it; `brain` what decided, where it is at hand.
    """

    steps: tuple[Step, ...]
    rewards: tuple[Reward, ...]
    version: str | None = None
    brain: Brain | None = None

    @classmethod
    def of(cls, policy: Learned, gained: float | None = None) -> "Episode":
        """Take what a policy remembers, and have it forget that. `gained` is told to `credited`, where it is known."""
        outcomes = [one for one in policy.outcomes if one.reward is not None and one.action.op == "germinate"]
        others = [one for one in policy.outcomes if one.reward is not None and one.action.op != "germinate"]
        worth = credited(outcomes, gained)
        rewards = _newest(
            Reward(
                one.observation,
                one.index,
                worth.get(one.observation, one.reward or 0.0),
                one.epochs,
                _judged(one.stage, one.contribution),
            )
            for one in (*outcomes, *others)
        )
        episode = cls(tuple(policy.steps), rewards, policy.version, policy.brain)
        policy.steps.clear()
        policy.outcomes.clear()
        return episode

    @classmethod
    def read(cls, events: Iterable[Event], columns: Sequence[str]) -> "Episode":
        """Read the events of one run, in any order of families."""
        shown: dict[str, Observation] = {}
        proposed: list[DecisionProposed] = []
        came: list[DecisionOutcome] = []
        for event in events:
            if isinstance(event, Observed):
                shown[event.observation] = Observation.of(event)
            elif isinstance(event, DecisionProposed):
                proposed.append(event)
            elif isinstance(event, DecisionOutcome):
                came.append(event)
        known = {one.decision: one for one in proposed if one.observation in shown}
        steps = []
        for one in sorted(known.values(), key=lambda one: one.epoch):
            observation = shown[one.observation]
            if int(observation.legal.sum()) > 1 and 0 <= one.index < len(observation.actions):
                seen = encode(observation, columns)
                steps.append(Step(one.observation, seen, one.index, one.logprob, one.value))
        rewards = _newest(
            Reward(
                known[one.decision].observation,
                known[one.decision].index,
                one.reward,
                one.epochs,
                _judged(one.stage, one.contribution),
            )
            for one in came
            if one.reward is not None and one.decision in known
        )
        versions = {one.policy_version for one in proposed}
        return cls(tuple(steps), rewards, versions.pop() if len(versions) == 1 else None)

    def decided_by(self, brain: Brain) -> bool:
        """Return whether this very version has decided all of it, and its log-probabilities are known."""
        same = self.brain is brain or (self.version is not None and self.version == brain.version)
        return same and all(step.logprob is not None for step in self.steps)

    def first(self, many: int) -> "Episode":
        """Return the first `many` decisions, and the rewards of those."""
        if many >= len(self.steps):
            return self
        steps = self.steps[:many]
        known = {step.observation for step in steps}
        return replace(self, steps=steps, rewards=tuple(one for one in self.rewards if one.observation in known))

    @property
    def lessons(self) -> tuple[Lesson, ...]:
        """The germinations that were judged."""
        steps = {step.observation: step for step in self.steps}
        return tuple(
            Lesson(steps[one.observation].seen, one.index, one.reward)
            for one in self.rewards
            if one.observation in steps and one.index < len(steps[one.observation].seen.ops)
            if one.judged and steps[one.observation].seen.ops[one.index] == GERMINATE
        )

    def paid(self, discount: float) -> "Floats":
        """Return what each step was paid, float32 (steps,): a reward is paid to the last decision before it was known."""
        epochs = {step.observation: step.seen.epoch for step in self.steps}
        found = np.zeros(len(self.steps), np.float32)
        times = np.array([step.seen.epoch for step in self.steps], np.int64)
        for one in self.rewards:
            if one.observation in epochs:
                known = epochs[one.observation] + max(0, one.epochs)
                at = int(np.searchsorted(times, known, "right")) - 1
                found[at] += one.reward * discount ** float(known - times[at])
        return found


def _judged(stage: str, contribution: float | None) -> bool:
    return stage in STANDING or (contribution is not None and contribution <= 0)


def _newest(found: Iterable[Reward]) -> tuple[Reward, ...]:
    """Keep the last word on each decision, and when the first one was said; what is not finite is no reward."""
    newest: dict[str, Reward] = {}
    for one in found:
        if math.isfinite(one.reward):
            first = newest.get(one.observation, one)
            newest[one.observation] = replace(one, epochs=first.epochs)
    return tuple(newest.values())
