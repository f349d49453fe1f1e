"""A menu that the generator proposes for the sites of one model, with what it expects of each entry."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from morphogen.consumers.policy import Limits
from morphogen.kernels import blueprints
from morphogen.kernels.blueprints import Blueprint, Request
from morphogen.schemas import BlueprintMeasured, BlueprintProposed, SiteInfo

_MOST = 1_000_000  # parameters of a proposal where the budget bounds none


@dataclass(frozen=True)
class Offers:
    """What was proposed: entries by site and name, the events that say so, and the request of each blueprint."""

    entries: dict[str, dict[str, Blueprint]] = field(default_factory=dict)
    events: tuple[BlueprintProposed, ...] = ()
    requests: dict[str, tuple[str, Blueprint, int | None]] = field(default_factory=dict)  # by address

    def at(self, site: SiteInfo) -> dict[str, Blueprint]:
        """Return the menu of a site."""
        return self.entries.get(site.site, {})

    def measured(self, address: str) -> BlueprintMeasured | None:
        """Build and time a blueprint that was proposed, on the CPU; None for one that was not."""
        if address not in self.requests:
            return None
        request, blueprint, length = self.requests[address]
        return blueprints.measured(blueprint, request=request, length=length)


def offers(sites: Sequence[SiteInfo], limits: Limits, seed: int) -> Offers:
    """Ask the generator for every site: seeds against a stalled loss, and against a bottleneck where one is.

    The same sites, limits and seed give the same offers. A site whose shapes are not known gets none.
    """
    entries: dict[str, dict[str, Blueprint]] = {}
    events: list[BlueprintProposed] = []
    requests: dict[str, tuple[str, Blueprint, int | None]] = {}
    for site in sites:
        if site.in_shape is None or site.out_shape is None:
            continue
        narrow = site.out_shape[-1 if site.kind != "image" else 0] < site.in_shape[-1 if site.kind != "image" else 0]
        request = Request(
            site=site.site,
            kind=site.kind,
            in_shape=tuple(site.in_shape),
            out_shape=tuple(site.out_shape),
            max_params=_MOST if limits.max_params is None else limits.max_params,
            max_flops=limits.max_flops,
            trouble=("plateau", "bottleneck") if narrow else ("plateau",),
            seed=seed,
        )
        length = site.in_shape[0] if site.kind == "sequence" else None
        told = blueprints.proposed(request, blueprints.propose(request))
        events += told
        menu = entries.setdefault(site.site, {})
        for event in told:
            blueprint = blueprints.decode(event.spec)
            name = event.name if event.name not in menu else f"{event.name}-{event.blueprint[:6]}"
            menu[name] = blueprint
            requests[event.blueprint] = (event.request, blueprint, length)
    return Offers(entries, tuple(events), requests)
