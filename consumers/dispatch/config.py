"""What dispatch may be told: thresholds, which matches to look at, what evidence weighs before there is any."""

from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real

from .errors import DispatchError


@dataclass(frozen=True, kw_only=True)
class DispatchConfig:
    """Settings of a dispatcher; all have defaults.

    `follower` is the probability of success that FOLLOWER needs, and CRYSTALLIZED at least; `mixed` that of MIXED.
    `crystallized` raises the bar of tools and may never lie below the follower's. A learner whose recorded success falls
    below `learner` is passed over where an orchestrator is there. `exact_prior` is believed of a family's mode before it
    was tried, as strongly as `prior_weight` trials. `matches` near families are looked at (0: none), none below `similarity`; one is
    followed, or its tool called, only once what it would have done was compared `near_trials` times with what was done for goals
    in the request's words. `shadow` runs tools that are not yet promoted beside what served.
    """

    follower: float = 0.92
    mixed: float = 0.75
    crystallized: float = 0.92
    learner: float = 0.2
    exact_prior: float = 0.95
    prior_weight: float = 2.0
    matches: int = 5
    similarity: float = 0.5
    near_trials: int = 1
    shadow: bool = True

    def __post_init__(self) -> None:
        for name in ("follower", "mixed", "crystallized", "learner", "exact_prior", "similarity"):
            value = getattr(self, name)
            if not _is(value, Real) or not 0.0 <= value <= 1.0:
                raise DispatchError(f"the setting {name} is {value!r}: give a probability from 0 to 1")
            object.__setattr__(self, name, float(value))
        if self.mixed > self.follower:
            raise DispatchError(
                f"mixed ({self.mixed}) is above follower ({self.follower}): following needs at least as much as being guided"
            )
        if self.crystallized < self.follower:
            raise DispatchError(
                f"crystallized ({self.crystallized}) is below follower ({self.follower}): a tool needs at least as much"
            )
        if not _is(self.prior_weight, Real) or not (isfinite(self.prior_weight) and self.prior_weight > 0):
            raise DispatchError(f"the setting prior_weight is {self.prior_weight!r}: give a number of trials above 0")
        for name in ("matches", "near_trials"):
            value = getattr(self, name)
            if not _is(value, Integral) or value < 0:
                raise DispatchError(f"the setting {name} is {value!r}: give a whole number from 0")
        if not isinstance(self.shadow, bool):
            raise DispatchError(f"the setting shadow is {self.shadow!r}: give True or False")

    @property
    def thresholds(self) -> dict[str, float]:
        """What each mode needs, as a decision records it."""
        return {
            "crystallized": self.crystallized,
            "follower": self.follower,
            "mixed": self.mixed,
            "learner": self.learner,
        }


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
