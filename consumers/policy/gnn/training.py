"""The school of the learned policy: from episodes to a better version, one recorded update after another."""

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import torch

from morphogen.schemas import Event, PolicyUpdated

from ..protocol import Policy
from .brain import NAME, Brain
from .episode import Episode
from .errors import LearningError
from .gain import Replay
from .learned import Learned
from .network import Network
from .ppo import improve
from .settings import Settings

Environment = Callable[[Policy, int], float | None]
"""Lets a policy decide for one run, which the number chooses. Returns what that run has gained over its control, the same
run without growth, in the unit of the rewards (shares of 1, such as accuracy); or None where there is no control."""


_TOGETHER = 2  # recorded runs of others that one update takes in


class Recorded(Protocol):
    """What a training of a policy is recorded by: a run, or anything with its `event`."""

    def event(self, event: Event, *, step: int | None = None, cause: str | None = None) -> str | None:
        """Record an event."""


class Trainer:
    """Trains a policy by PPO on what it has just decided and by regression on all outcomes.

    Each update is recorded in `run` (`policy.updated`) and saved to `path`, where an earlier file stays until then; with
    `keep` every version stays beside it under its sha256, so that decisions of the schooling itself can be replayed. The global random generators are left
    alone: the same brain, seed and episodes give the same weights.
    """

    def __init__(
        self,
        brain: Brain | None = None,
        *,
        seed: int = 0,
        settings: Settings | None = None,
        run: Recorded | None = None,
        path: str | os.PathLike[str] | None = None,
        keep: bool = False,
    ) -> None:
        self.brain = Brain.new(seed, settings=settings) if brain is None else brain
        self.seed = seed
        self._run, self._path, self._keep = run, None if path is None else Path(path), keep
        self._network = Network(self.brain.weights, self.brain.settings)
        chosen = self.brain.settings
        self._acting = torch.optim.Adam(self._network.acting(), lr=chosen.rate)
        self._gaining = torch.optim.AdamW(self._network.gaining(), lr=chosen.gain_rate, weight_decay=chosen.gain_decay)
        self._replay = Replay(chosen, seed)
        self._saved = False
        if self._path is not None:
            self._begin(self._path)

    def policy(self, seed: int, *, explore: bool = True) -> Learned:
        """Return the policy as it is now; by default it explores, and remembers for `update`."""
        return Learned(seed, brain=self.brain, explore=explore, remember=explore)

    def fit(
        self,
        environment: Environment,
        seeds: Iterable[int],
        *,
        limit: int | None = None,
        heard: Callable[[dict[str, float]], object] | None = None,
    ) -> Brain:
        """Let the policy decide for one run a seed and learn after every few; stop before `limit` experiences are exceeded.

        An episode whose experiences would go beyond the limit is cut where the limit is: the rest of it is not learned
        from. `heard` is told what was measured after each update.
        """
        waiting: list[Episode] = []
        room = None if limit is None else limit - self.brain.schooling.experiences
        for seed in seeds:
            if room is not None and room <= 0:
                break
            policy = self.policy(seed)
            episode = Episode.of(policy, _gain(environment(policy, seed)))
            if room is not None:
                episode = episode.first(room)
                room -= len(episode.steps)
            waiting.append(episode)
            if len(waiting) >= self.brain.settings.episodes:
                measured = self.update(waiting)
                waiting = []
                if heard is not None:
                    heard(measured)
        if waiting:
            self.update(waiting)
        return self._done()

    def study(self, episodes: Sequence[Episode], *, limit: int | None = None) -> Brain:
        """Learn from recorded runs, whoever decided: first from those that this version decided, then from all others.

        Beyond `limit` experiences nothing is learned from.
        """
        room = None if limit is None else limit - self.brain.schooling.experiences
        kept: list[Episode] = []
        for episode in episodes:
            part = episode if room is None else episode.first(max(0, room))
            room = None if room is None else room - len(part.steps)
            if part.steps:
                kept.append(part)
        own = [episode for episode in kept if episode.decided_by(self.brain)]
        others = [episode for episode in kept if episode not in own]
        if own:
            self.update(own)
        for at in range(0, len(others), _TOGETHER):
            self.update(others[at : at + _TOGETHER])
        return self._done()

    def update(self, episodes: Sequence[Episode]) -> dict[str, float]:
        """Learn from episodes and return what was measured.

        PPO learns from those that this very version has decided with recorded log-probabilities; the regression learns
        from every germination that was judged.
        """
        brain, previous = self.brain, self.brain.version
        own = [episode for episode in episodes if episode.decided_by(brain)]
        measured = improve(self._network, own, brain.scale, self._acting, brain.reward_mean, brain.reward_spread)
        steps = [step for episode in episodes for step in episode.steps]
        lessons = [lesson for episode in episodes for lesson in episode.lessons]
        scale = brain.scale.seen([step.seen.values for step in steps])
        rewards = brain.rewards.seen([np.array([[lesson.reward] for lesson in lessons], np.float32)] if lessons else [])
        brain = replace(brain, scale=scale, rewards=rewards)
        self._replay.add(lessons)
        measured |= self._replay.train(self._network, scale, brain.reward_mean, brain.reward_spread, self._gaining)
        schooling = brain.schooling
        schooling = msgspec.structs.replace(
            schooling,
            experiences=schooling.experiences + len(steps),
            outcomes=schooling.outcomes + len(lessons),
            episodes=schooling.episodes + len(episodes),
            updates=schooling.updates + 1,
        )
        self.brain = replace(brain, weights=self._network.weights(), schooling=schooling, version=None)
        measured["on_policy"] = float(sum(len(one.steps) for one in own))
        measured["outcomes"] = float(len(lessons))
        paid = [reward.reward for episode in episodes for reward in episode.rewards]
        if paid:
            measured["reward"] = float(np.sum(paid)) / len(episodes)
        self._save()
        self._tell(measured, previous, len(steps))
        return measured

    def _begin(self, path: Path) -> None:
        """Find out the first version, and that there is room, before anything is played."""
        first = path.with_name(f".{path.name[:100]}.first") if path.is_file() else path
        try:
            self.brain = self.brain.save(first)
            self._keep_version(path)
        finally:
            if first != path:
                first.unlink(missing_ok=True)

    def _done(self) -> Brain:
        if not self._saved:  # nothing was learned
            self._save()
        return self.brain

    def _save(self) -> None:
        if self._path is None:
            return
        self.brain = self.brain.save(self._path)
        self._saved = True
        self._keep_version(self._path)

    def _keep_version(self, path: Path) -> None:
        if self._keep:
            self.brain.save(path.with_name(f"{self.brain.version}.safetensors"))

    def _tell(self, measured: dict[str, float], previous: str | None, samples: int) -> None:
        if self._run is None:
            return
        schooling = self.brain.schooling
        self._run.event(
            PolicyUpdated(
                policy=NAME,
                policy_version=self.brain.version or "",
                previous=previous,
                samples=samples,
                experiences=schooling.experiences,
                measured={name: value for name, value in measured.items() if np.isfinite(value)},
                checkpoint=None if self._path is None else self._path.resolve().as_uri(),
            ),
            step=schooling.updates,
        )
        log: Any = getattr(self._run, "log", None)
        if log is not None:
            log({f"policy/{name}": value for name, value in measured.items()}, step=schooling.updates)


def _gain(value: Any) -> float | None:
    """Return what an environment has returned as a number. Raises LearningError for what is none, or is not finite."""
    try:
        gain = None if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        gain = math.nan
    if gain is not None and not math.isfinite(gain):
        raise LearningError(
            f"an environment returns what a run has gained, a finite number, or None, not {value!r:.100}"
        )
    return gain
