"""The learned policy as a run sees it: it decides with what it knows, and remembers what came of it.

It learns between runs, not within one: `training.Trainer` takes what it remembers. So a run is decided by one version,
and the log can ask that version again.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from morphogen.schemas import Action

from ..checkpoint import Checkpoint
from ..options import flag
from ..protocol import Observation, Outcome, Proposal
from .brain import NAME, Brain
from .chances import best, chances
from .encode import Encoded, encode
from .forward import GERMINATE, Thought, think
from .settings import Settings

if TYPE_CHECKING:
    from .encode import Floats


@dataclass(frozen=True, eq=False)
class Step:
    """One decision with a choice: what was seen, what was chosen, how likely that was, and what was expected."""

    observation: str
    seen: Encoded
    index: int
    logprob: float | None
    value: float | None


class Learned:
    """Graph attention over the layers and slots, a score for each action, and an ensemble that predicts rewards.

    Exploring, it draws from its chances by a generator of `seed` and epoch, and favours germinations that its ensemble
    does not agree on; else it takes the likeliest action. `explore=None` explores as long as nothing was learned.
    With `remember` it keeps what it decided and what it is told of that, for the school.
    `uncertainty` is the ensemble's standard deviation for a germination, in units of reward; other actions have none.
    """

    name = NAME

    def __init__(
        self,
        seed: int = 0,
        *,
        explore: bool | None = None,
        brain: Brain | None = None,
        settings: Settings | None = None,
        remember: bool = False,
    ) -> None:
        if explore is not None:
            flag(NAME, "explore", explore)
        self.seed = seed
        self.brain = Brain.new(seed, settings=settings) if brain is None else brain
        self.explore = self.brain.schooling.updates == 0 if explore is None else explore
        self.steps: list[Step] = []
        self.outcomes: list[Outcome] = []
        self._remember = remember

    @classmethod
    def restored(cls, checkpoint: Checkpoint, *, seed: int = 0, **options: Any) -> "Learned":
        """Return the policy of a checkpoint; it does not explore unless asked to."""
        return cls(seed, brain=Brain.of(checkpoint), **{"explore": False, **options})

    @property
    def options(self) -> dict[str, Any]:
        """What it was made with, beside what it has learned."""
        return {"explore": self.explore}

    @property
    def version(self) -> str | None:
        """The sha256 of its checkpoint, None where it was never saved."""
        return self.brain.version

    def decide(self, observation: Observation) -> Proposal:
        """Choose one of the legal actions."""
        brain = self.brain
        seen = encode(observation, brain.columns)
        thought = think(brain.weights, brain.settings, brain.scale, seen)
        shares = chances(thought, seen, brain.settings, explore=self.explore, nothing=brain.nothing)
        index = self._draw(shares, observation.epoch) if self.explore else best(shares, seen.ops)
        chance = float(shares[index])
        proposal = Proposal(
            index,
            reason=_reason(brain, observation.actions[index], thought, index, chance, explore=self.explore),
            logprob=float(np.log(max(chance, 1e-30))),
            value=thought.value * brain.reward_spread,
            entropy=_entropy(shares),
            uncertainty=_uncertainty(brain, thought, index) if seen.ops[index] == GERMINATE else None,
            confidence=chance,
            scores=shares.tolist(),
        )
        if self._remember and seen.choices > 1:
            self.steps.append(Step(observation.sha256, seen, index, proposal.logprob, proposal.value))
        return proposal

    def learn(self, outcome: Outcome) -> None:
        """Remember what came of a decision; nothing is learned before the run is over."""
        if self._remember:
            self.outcomes.append(outcome)

    def save(self, path: str | os.PathLike[str]) -> str:
        """Write what it knows as a checkpoint and return its sha256."""
        self.brain = self.brain.save(path)
        return str(self.brain.version)

    def _draw(self, shares: "Floats", epoch: int) -> int:
        point = np.random.default_rng((self.seed, epoch + 1)).random()
        chosen = int(
            np.searchsorted(np.cumsum(shares, dtype=np.float64), point * float(shares.sum(dtype=np.float64)), "right")
        )
        return min(chosen, int(np.flatnonzero(shares)[-1]))


def _entropy(shares: "Floats") -> float:
    some = shares[shares > 0].astype(np.float64)
    return float(-(some * np.log(some)).sum())


def _uncertainty(brain: Brain, thought: Thought, index: int) -> float:
    return float(thought.gains[:, index].std()) * brain.reward_spread


def _reason(brain: Brain, action: Action, thought: Thought, index: int, chance: float, *, explore: bool) -> str:
    how = f"{chance:.0%} of the chances" if explore else f"the likeliest, {chance:.0%}"
    if action.op != "germinate":
        return f"{action.op}{f' {action.slot}' if action.slot else ''}: {how}"
    expected = brain.reward_mean + brain.reward_spread * float(thought.gains[:, index].mean())
    spread = _uncertainty(brain, thought, index)
    return f"germinate {action.blueprint} at {action.slot}: {how}, reward {expected:.3g} ± {spread:.2g} expected"
