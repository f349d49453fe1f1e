"""A rule that needs no experience: when the run has stalled, grow where the host squeezes most."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import PolicyError
from ..options import flag
from ..protocol import Observation, Outcome, Proposal, site_of
from ..raising import raise_seeds

CHOOSE = ("squeezed", "cheapest", "random")


class Heuristic:
    """On a plateau, germinates; else raises what stands. One rule for when, three for what and where.

    - `squeezed`: at the site whose inputs are squeezed most (width in over width out), the widest blueprint that is
      legal; a slot that has failed or been pruned comes later. The bet: a stalled host lacks capacity, and lacks it
      where the most information is lost.
    - `cheapest`: the blueprint with the fewest parameters, at each site in turn.
    - `random`: any. With `only` one blueprint it is the control for size: the same timing, the same parameters.

    `only` names the blueprints to choose from. `wait_for_plateau=False` germinates whenever it is legal.
    """

    name = "heuristic"
    version = None

    def __init__(
        self,
        seed: int = 0,
        *,
        choose: str = "squeezed",
        only: Sequence[str] | None = None,
        wait_for_plateau: bool = True,
    ) -> None:
        if choose not in CHOOSE:
            raise PolicyError(f"policy heuristic: there is no way to choose {choose!r}: one of {', '.join(CHOOSE)}")
        flag("heuristic", "wait_for_plateau", wait_for_plateau)
        self.seed = seed
        self._choose, self._plateau = choose, wait_for_plateau
        self._only = None if only is None else frozenset([only] if isinstance(only, str) else only)

    @property
    def options(self) -> dict[str, Any]:
        """What it was made with."""
        only = None if self._only is None else sorted(self._only)
        return {"choose": self._choose, "only": only, "wait_for_plateau": self._plateau}

    def decide(self, observation: Observation) -> Proposal:
        """Raise what stands, else germinate on a plateau, else wait."""
        raised = raise_seeds(observation)
        if raised is not None:
            return raised
        if self._plateau and observation.value("plateau") != 1:
            return Proposal(0, reason="the loss still falls")
        choices = [
            at
            for at in observation.choices
            if observation.actions[at].op == "germinate"
            and (self._only is None or observation.actions[at].blueprint in self._only)
        ]
        if not choices:
            return Proposal(0, reason="nothing may be germinated")
        if self._choose == "random":
            generator = np.random.default_rng((self.seed, observation.epoch + 1))
            index = choices[int(generator.integers(len(choices)))]
            return Proposal(index, logprob=-math.log(len(choices)), reason=f"a plateau: one of {len(choices)} seeds")
        tried = _tried(observation)
        if self._choose == "cheapest":
            index = min(choices, key=lambda at: (tried[_slot(observation, at)], _params(observation, at), at))
            return Proposal(index, reason="a plateau: the cheapest seed where the fewest were tried")
        squeeze = _squeeze(observation)
        rank = {slot: (tried[slot], -squeeze[slot]) for slot in observation.slots}
        index = min(choices, key=lambda at: (rank[_slot(observation, at)], -_params(observation, at), at))
        slot = _slot(observation, index)
        return Proposal(index, reason=f"a plateau: {site_of(slot)} squeezes its inputs {squeeze[slot]:.3g} times")

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing."""


def _tried(observation: Observation) -> dict[str, float]:
    """Return for each slot how many seeds were tried at its site, in all the slots there."""
    germinated = observation.values("germinated")
    sites: dict[str, float] = {}
    for slot, count in germinated.items():
        sites[site_of(slot)] = sites.get(site_of(slot), 0.0) + count
    return {slot: sites[site_of(slot)] for slot in germinated}


def _squeeze(observation: Observation) -> dict[str, float]:
    """Return for each slot how many times wider is what goes into its site than what comes out; 1 where unknown."""
    wide, narrow = observation.values("in_size"), observation.values("out_size")
    return {slot: wide[slot] / narrow[slot] if wide[slot] > 0 and narrow[slot] > 0 else 1.0 for slot in wide}


def _slot(observation: Observation, at: int) -> str:
    return observation.actions[at].slot or ""


def _params(observation: Observation, at: int) -> int:
    return observation.params[at] if at < len(observation.params) else 0
