"""The other control: any legal action, each as likely as another."""

import math

import numpy as np

from ..protocol import Observation, Outcome, Proposal


class Random:
    """Draws from the legal actions, `wait` among them; the draw depends on the seed and the epoch alone."""

    name = "random"
    version = None

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def decide(self, observation: Observation) -> Proposal:
        """Draw."""
        choices = observation.choices
        at = int(np.random.default_rng((self.seed, observation.epoch + 1)).integers(len(choices)))
        many = math.log(len(choices))
        return Proposal(choices[at], logprob=-many, entropy=many, reason=f"one of {len(choices)} legal actions")

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing."""
