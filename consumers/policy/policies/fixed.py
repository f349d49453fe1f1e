"""A plan made beforehand: what grows where, and after which epoch."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from ..errors import PolicyError
from ..options import flag
from ..protocol import Observation, Outcome, Proposal, site_of
from ..raising import raise_seeds


class Planned(NamedTuple):
    """One germination: after which epoch, at which slot or site, of which blueprint of the menu."""

    epoch: int
    place: str
    blueprint: str


class Fixed:
    """Germinates by plan, as soon as the epoch is reached and it is legal, each entry once; raises what it planted.

    `plan` holds (epoch, place, blueprint) each. What is not legal is tried again after the next epoch. Without
    `judge` a seed that does not help is given time instead of being pruned.
    """

    name = "fixed"
    version = None

    def __init__(self, seed: int = 0, *, plan: Iterable[Any] = (), judge: bool = True) -> None:
        flag("fixed", "judge", judge)
        self.seed = seed
        self._judge = judge
        self._plan = sorted(map(_planned, plan), key=lambda planned: planned.epoch)

    @property
    def options(self) -> dict[str, Any]:
        """What it was made with."""
        return {"plan": [[one.epoch, one.place, one.blueprint] for one in self._plan], "judge": self._judge}

    def decide(self, observation: Observation) -> Proposal:
        """Follow the plan."""
        raised = raise_seeds(observation, judge=self._judge)
        if raised is not None:
            return raised
        due: dict[str, float] = {}  # how often something was due at a place, up to here in the plan
        for planned in self._plan:
            if planned.epoch > observation.epoch:
                break
            due[planned.place] = due.get(planned.place, 0) + 1
            slots = [slot for slot in observation.slots if planned.place in {slot, site_of(slot)}]
            if sum(observation.value("germinated", slot) or 0.0 for slot in slots) >= due[planned.place]:
                continue
            for slot in slots:
                index = observation.index("germinate", slot, planned.blueprint)
                if index is not None:
                    return Proposal(index, reason=f"planned for epoch {planned.epoch}")
        return Proposal(0, reason="nothing is due" if self._plan else "the plan is empty")

    def learn(self, outcome: Outcome) -> None:
        """Learn nothing."""


def _planned(entry: Any) -> Planned:
    try:
        epoch, place, blueprint = (
            (entry["epoch"], entry["place"], entry["blueprint"]) if isinstance(entry, dict) else entry
        )
        return Planned(int(epoch), str(place), str(blueprint))
    except (KeyError, TypeError, ValueError) as error:
        raise PolicyError(
            f"policy fixed: a plan holds (epoch, place, blueprint) each, not {str(entry)[:100]!r}"
        ) from error
