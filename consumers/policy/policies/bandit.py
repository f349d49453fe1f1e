"""UCB1 over site x blueprint: what helped where, counted over earlier runs (Auer et al., 2002)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from morphogen.schemas import line_of

from ..errors import CheckpointError, PolicyError
from ..options import flag
from ..protocol import Observation, Outcome, Proposal, site_of
from ..raising import raise_seeds


@dataclass(frozen=True)
class Arm:
    """What is known of one blueprint at one site: how often it was judged, and the sums of its rewards."""

    pulls: int = 0
    total: float = 0.0
    squares: float = 0.0

    @property
    def mean(self) -> float:
        """The mean reward, 0 before the first."""
        return self.total / self.pulls if self.pulls else 0.0

    def pulled(self, reward: float) -> "Arm":
        """Return the arm after one more reward."""
        return replace(self, pulls=self.pulls + 1, total=self.total + reward, squares=self.squares + reward * reward)


class Bandit:
    """On a plateau, germinates the arm of the highest upper confidence bound; raises what stands by the common rule.

    An arm that was never judged comes first, in the order of the actions. The bound is
    `mean + explore * spread * sqrt(2 ln(pulls of all) / pulls)`; `spread` is the range of the rewards seen so far,
    which puts them on the scale of 0 to 1 that UCB1 stands on. `explore=0` takes the best known arm. With
    `keep_learning=False` outcomes change nothing: what a judged policy is to be.
    """

    name = "bandit"

    def __init__(
        self,
        seed: int = 0,
        *,
        explore: float = 1.0,
        wait_for_plateau: bool = True,
        keep_learning: bool = True,
        arms: Mapping[str, Arm] | None = None,
        low: float | None = None,
        high: float | None = None,
        version: str | None = None,
    ) -> None:
        if isinstance(explore, bool) or not isinstance(explore, int | float) or not 0 <= explore < math.inf:
            raise PolicyError(f"policy bandit: explore is 0 or more, not {explore!r:.50}")
        flag("bandit", "wait_for_plateau", wait_for_plateau)
        flag("bandit", "keep_learning", keep_learning)
        self.seed = seed
        self.version = version
        self.arms: dict[str, Arm] = dict(arms or {})
        self._explore, self._plateau, self._keep_learning = explore, wait_for_plateau, keep_learning
        self._low, self._high = low, high

    @property
    def options(self) -> dict[str, Any]:
        """What it was made with, beside what it has learned."""
        return {
            "explore": self._explore, "wait_for_plateau": self._plateau, "keep_learning": self._keep_learning,
        }  # fmt: skip

    @property
    def experiences(self) -> int:
        """How many outcomes it has learned from."""
        return sum(arm.pulls for arm in self.arms.values())

    def decide(self, observation: Observation) -> Proposal:
        """Raise what stands, else germinate the best arm on a plateau, else wait."""
        raised = raise_seeds(observation)
        if raised is not None:
            return raised
        if self._plateau and observation.value("plateau") != 1:
            return Proposal(0, reason="the loss still falls")
        choices = [at for at in observation.choices if observation.actions[at].op == "germinate"]
        if not choices:
            return Proposal(0, reason="nothing may be germinated")
        arms = {at: self.arms.get(_name(observation, at), Arm()) for at in choices}
        if self._explore > 0:
            unknown = next((at for at in choices if not arms[at].pulls), None)
            if unknown is not None:
                return Proposal(unknown, reason=f"{_name(observation, unknown)} was never judged")
        spread = (self._high or 0.0) - (self._low or 0.0) or 1.0
        pulls = max(1, self.experiences)
        bounds = {at: self._bound(arm, pulls, spread) for at, arm in arms.items()}
        best = max(choices, key=lambda at: (bounds[at], -at))
        if self._explore <= 0 and bounds[best] <= 0:
            return Proposal(0, reason="no known seed has paid here")
        chosen = arms[best]
        scores = [bounds.get(at, -math.inf) for at in range(len(observation.actions))]
        reason = (
            f"{_name(observation, best)}: mean reward {chosen.mean:.4g} of {chosen.pulls}, bound {bounds[best]:.4g}"
        )
        return Proposal(best, value=chosen.mean, uncertainty=_error(chosen), scores=scores, reason=reason)

    def learn(self, outcome: Outcome) -> None:
        """Count the reward of a germination; outcomes of other actions, and what has no reward, say nothing here."""
        action, reward = outcome.action, outcome.reward
        if not self._keep_learning or action.op != "germinate" or reward is None or not math.isfinite(reward):
            return
        if not action.slot or not action.blueprint or not outcome.final:
            return
        arm = f"{site_of(action.slot)}|{action.blueprint}"
        self.arms[arm] = self.arms.get(arm, Arm()).pulled(reward)
        self._low = reward if self._low is None else min(self._low, reward)
        self._high = reward if self._high is None else max(self._high, reward)

    def state(self) -> dict[str, Any]:
        """Return what it has learned, as plain values for a checkpoint."""
        arms = {name: [arm.pulls, arm.total, arm.squares] for name, arm in sorted(self.arms.items())}
        return {"arms": arms, "low": self._low, "high": self._high}

    @classmethod
    def restored(
        cls, state: Mapping[str, Any], *, seed: int = 0, version: str | None = None, **options: Any
    ) -> "Bandit":
        """Return a bandit that goes on from `state`; by default it does not explore and learns nothing more."""
        try:
            arms = {
                str(name): Arm(int(pulls), float(total), float(squares))
                for name, (pulls, total, squares) in state["arms"].items()
            }
            low, high = (None if state[end] is None else float(state[end]) for end in ("low", "high"))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"no state of a bandit: {type(error).__name__}: {line_of(error, 120)}") from error
        if not all(0 <= arm.pulls < 1 << 63 and math.isfinite(arm.total + arm.squares) for arm in arms.values()):
            raise CheckpointError("no state of a bandit: an arm has no count of pulls, or rewards that are not finite")
        if not all(end is None or math.isfinite(end) for end in (low, high)):
            raise CheckpointError("no state of a bandit: its lowest or highest reward is not finite")
        settings: dict[str, Any] = {"explore": 0.0, "keep_learning": False, **options}
        return cls(seed, arms=arms, low=low, high=high, version=version, **settings)

    def _bound(self, arm: Arm, pulls: int, spread: float) -> float:
        if not arm.pulls:
            return 0.0
        return arm.mean + self._explore * spread * math.sqrt(2 * math.log(pulls) / arm.pulls)


def _name(observation: Observation, at: int) -> str:
    action = observation.actions[at]
    return f"{site_of(action.slot or '')}|{action.blueprint}"


def _error(arm: Arm) -> float | None:
    """Return the standard error of an arm's mean, None with fewer than two rewards."""
    if arm.pulls < 2:
        return None
    variance = max(0.0, arm.squares - arm.total * arm.total / arm.pulls) / (arm.pulls - 1)
    return math.sqrt(variance / arm.pulls)
