"""What the log says of decisions that are alike: the outcomes of the same action elsewhere.

Alike is, first, the same action and blueprint at the same site of the same host; where fewer than three runs have
that, the same action and blueprint at a site of the same kind and shapes, in any host; where fewer than three runs
have that either, nothing is known. When in a run it was done does not enter.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from morphogen.schemas import AdaptationStarted, DecisionOutcome, DecisionProposed, SiteInfo

from .interval import Estimate, estimate
from .recorded import Recorded, blueprints_of

SAME_SITE, SAME_SHAPE = "same site of the same host", "site of the same kind and shapes"


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What a network is, as far as growth sees it: its sites. Equal hosts have equal addresses."""

    address: str
    sites: dict[str, SiteInfo]

    @classmethod
    def of(cls, started: AdaptationStarted) -> "Host":
        """Read it from the beginning of a run."""
        told = msgspec.msgpack.encode([started.host_params, started.sites])
        return cls(address=hashlib.sha256(told).hexdigest()[:16], sites={site.site: site for site in started.sites})

    def shape(self, site: str) -> str | None:
        """Return kind and shapes of a site as one word; None where they are not known."""
        info = self.sites.get(site)
        if info is None or info.in_shape is None or info.out_shape is None:
            return None
        return f"{info.kind} {info.in_shape} {info.out_shape}"


@dataclass(frozen=True)
class Experience:
    """A decision that was carried out and judged. `blueprint` is the menu's name of what the seed is."""

    run: str
    decision: str
    epoch: int
    host: str
    op: str
    site: str
    shape: str | None
    blueprint: str | None
    contribution: float
    reward: float | None


@dataclass
class Evidence:
    """All outcomes that are known, findable by likeness. Outcomes that were never measured are not among them."""

    all: list[Experience] = field(default_factory=list)
    _by_site: dict[tuple[str, str, str, str | None], list[Experience]] = field(default_factory=dict)
    _by_shape: dict[tuple[str, str, str | None], list[Experience]] = field(default_factory=dict)

    def add(self, found: Iterable[Experience]) -> None:
        """Take in experiences."""
        for one in found:
            self.all.append(one)
            self._by_site.setdefault((one.host, one.op, one.site, one.blueprint), []).append(one)
            if one.shape is not None:
                self._by_shape.setdefault((one.shape, one.op, one.blueprint), []).append(one)

    def of(self, host: Host, op: str, site: str, blueprint: str | None) -> tuple[Estimate, str]:
        """Return what is known of an action's contribution, and by which likeness."""
        same = self._by_site.get((host.address, op, site, blueprint), [])
        found = _estimate(same)
        if found.known:
            return found, SAME_SITE
        shape = host.shape(site)
        wider = _estimate(self._by_shape.get((shape, op, blueprint), []) if shape is not None else [])
        return (wider, SAME_SHAPE) if wider.known or wider.values > found.values else (found, SAME_SITE)


def experiences_of(recorded: Recorded) -> list[Experience]:
    """Return the judged decisions of a run whose contribution was measured, by their last final outcome."""
    host = Host.of(recorded.started)
    proposed: dict[str, DecisionProposed] = {}
    outcomes: dict[str, DecisionOutcome] = {}
    for told in recorded.told:
        event = told.event
        if isinstance(event, DecisionProposed):
            proposed.setdefault(event.decision, event)
        elif isinstance(event, DecisionOutcome) and event.final:
            outcomes[event.decision] = event
    names = blueprints_of(recorded)
    found = []
    for decision, outcome in outcomes.items():
        was = proposed.get(decision)
        slot = outcome.slot if was is None else was.action.slot or outcome.slot
        if was is None or slot is None or outcome.contribution is None:
            continue
        if not math.isfinite(outcome.contribution):  # of a loss that was lost: how much it was worth is not known
            continue
        site = slot.rpartition("#")[0] or slot
        found.append(
            Experience(
                run=str(recorded.key), decision=decision, epoch=was.epoch, host=host.address, op=was.action.op, site=site,
                shape=host.shape(site), blueprint=was.action.blueprint or names.get(outcome.seed or "", outcome.blueprint),
                contribution=outcome.contribution, reward=outcome.reward,
            )
        )  # fmt: skip
    return found


def _estimate(found: list[Experience]) -> Estimate:
    return estimate((one.run, one.contribution) for one in found)
