"""Ranked blueprints for a site: templates, and what a search makes of them, with what each will cost and may bring."""

import hashlib
from collections.abc import Iterator, Sequence

import msgspec

from morphogen.schemas import BlueprintProposed

from .blueprint import Blueprint, address, check_shape, encode
from .costs import flops, params
from .errors import InvalidBlueprint
from .gain import GainModel, guess, likeness
from .latency import LatencyModel
from .menus import fitting
from .ops import Shape
from .search import evolve
from .templates import templates
from .validation import Budget, keeps_to

TROUBLES = ("plateau", "bottleneck", "dead", "exploding", "vanishing")
"""What may ail a site: the loss stands still, too few values pass, units are dead, values or gradients grow or fade."""

_Ranked = tuple[float, Blueprint, str, tuple[str, ...]]  # score, blueprint, origin, parents

_OPEN = 16  # positions that an open length counts as, to rank and to keep to a budget


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted: something that fits a site, within a budget, against some trouble."""

    site: str
    kind: str
    in_shape: Shape
    out_shape: Shape
    max_params: int | None = 1_000_000
    max_flops: int | None = None  # of one sample
    max_latency_ns: int | None = None  # needs a latency model
    trouble: tuple[str, ...] = ()
    seed: int = 0
    count: int = 8


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """A blueprint, best first in a list of them; parameters and operations are exact, the rest is predicted."""

    blueprint: Blueprint
    params: int
    flops: int
    latency_ns: int | None
    gain: float | None
    origin: str  # template | search
    parents: tuple[str, ...] = ()


def propose(request: Request, *, latency: LatencyModel | None = None, gains: GainModel | None = None) -> list[Proposal]:
    """Return blueprints for a request, best first; every one is valid, fits the site and keeps to the budget.

    The same request gives the same blueprints in the same order. Variants of one another stand behind the best of them, and
    at most half come from the search while templates remain. The list is empty where nothing fits.

    Args:
        request: What is wanted.
        latency: From `calibrate`; without it latencies are None.
        gains: Learned from outcomes; without it gains are None and a guess ranks.

    Raises:
        InvalidBlueprint: shapes, trouble or limits of the request that cannot be.
    """
    given, wanted = fitting(request.kind, request.in_shape, request.out_shape)
    check_shape(given, f"site {request.site}: input")
    check_shape(wanted, f"site {request.site}: output")
    if strange := set(request.trouble) - set(TROUBLES):
        raise InvalidBlueprint(f"trouble {min(strange)[:40]!r}: known are {', '.join(TROUBLES)}")
    if not 1 <= request.count <= 64:
        raise InvalidBlueprint(f"count {request.count}: from 1 to 64 proposals")
    if request.max_latency_ns is not None and latency is None:
        raise InvalidBlueprint("max_latency_ns needs a latency model: pass latency=calibrate()")
    budget = Budget(params=request.max_params, flops=request.max_flops)

    def score(blueprint: Blueprint) -> float:
        return gains.predict(blueprint) if gains else guess(blueprint, request.trouble)

    known = [found for found in templates(given, wanted) if keeps_to(found, budget, length=_OPEN)]
    ranked: list[_Ranked] = []
    ranked += [(score(found), found, "template", ()) for found in known]
    found_by_search = evolve(known, score, budget=budget, seed=request.seed, length=_OPEN)
    ranked += [(found.score, found.blueprint, "search", found.parents) for found in found_by_search]
    ranked.sort(key=lambda row: (-row[0], address(row[1])))
    proposals: list[Proposal] = []
    for _, blueprint, origin, parents in _varied(ranked, request.count):
        took = latency.predict(blueprint, length=_OPEN) if latency else None
        if request.max_latency_ns is not None and took is not None and took > request.max_latency_ns:
            continue
        proposals.append(
            Proposal(
                blueprint=blueprint,
                params=params(blueprint),
                flops=flops(blueprint, length=_OPEN),
                latency_ns=took,
                gain=gains.predict(blueprint) if gains else None,
                origin=origin,
                parents=parents,
            )
        )
        if len(proposals) == request.count:
            break
    return proposals


def _varied(ranked: Sequence[_Ranked], count: int) -> Iterator[_Ranked]:
    """Yield the best of each likeness, no more than half of what is asked for from the search; then all the others."""
    kinds: set[tuple[int, ...]] = set()
    later, searched = [], 0
    for row in ranked:
        kind = likeness(row[1])
        from_search = row[2] == "search"
        if kind in kinds or (from_search and searched >= max(1, count // 2)):
            later.append(row)
            continue
        kinds.add(kind)
        searched += from_search
        yield row
    yield from later


def request_id(request: Request) -> str:
    """Return the sha256 of a request: the same request, the same name."""
    return hashlib.sha256(msgspec.msgpack.encode(request)).hexdigest()


def proposed(request: Request, proposals: list[Proposal]) -> list[BlueprintProposed]:
    """Return proposals as events, the best has rank 1."""
    name = request_id(request)
    return [
        BlueprintProposed(
            request=name,
            site=request.site,
            rank=rank,
            blueprint=address(proposal.blueprint),
            name=proposal.blueprint.name,
            spec=encode(proposal.blueprint),
            origin=proposal.origin,
            params=proposal.params,
            flops=proposal.flops,
            latency_ns=proposal.latency_ns,
            gain=proposal.gain,
            parents=list(proposal.parents),
        )
        for rank, proposal in enumerate(proposals, 1)
    ]
