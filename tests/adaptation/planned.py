"""A policy with a plan, and budgets that let it be followed."""

from typing import Any

from morphogen.consumers.policy import Proposal

QUICK = {"min_training": 1, "cooldown": 1, "earliest": 0}


class Planned:
    """Does the listed things at the listed epochs, if they are legal."""

    name = "planned"
    version = None

    def __init__(self, plan: dict[int, tuple[str, str | None, str | None]]) -> None:
        self.plan, self.learned = plan, []  # type: ignore[var-annotated]

    def decide(self, observation: Any) -> Proposal:
        wanted = self.plan.get(observation.epoch)
        index = None if wanted is None else observation.index(*wanted)
        return Proposal(0 if index is None else index, reason="planned")

    def learn(self, outcome: Any) -> None:
        self.learned.append(outcome)


def kept() -> Planned:
    """A policy that germinates one seed and keeps it."""
    return Planned(
        {
            1: ("germinate", "0#0", "mlp16"),
            3: ("advance", "0#0", None),
            5: ("advance", "0#0", None),
            7: ("fossilize", "0#0", None),
        }
    )


ANY_GAIN = {**QUICK, "min_contribution": -1e9}
