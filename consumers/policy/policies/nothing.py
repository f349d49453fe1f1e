"""The control: never do anything."""

from ..protocol import Observation, Outcome, Proposal


class Nothing:
    """Waits. What a run is without growth, recorded all the same."""

    name = "none"
    version = None

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def decide(self, observation: Observation) -> Proposal:
        """Wait."""
        return Proposal(0, reason="this policy never acts")

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing."""
