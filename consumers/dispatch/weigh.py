"""What each mode has to offer a request, from the past and the tools there are. Pure: state in, offers out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from morphogen.consumers.crystallizer import Registry, Version, missed
from morphogen.consumers.crystallizer.guards import name_of

from .binding import Unbound, bind
from .calibrate import Tally, belief
from .config import DispatchConfig
from .decide import Offer
from .explain import CannotFollow
from .plan import check
from .state import DispatchState

_LEARNER_PRIOR = 0.7  # of a loop that was never tried on a family


class Tools(Protocol):
    """The tools that can be called: a `Loader` of the crystallizer, as far as the decision looks at it."""

    registry: Registry

    def active(self, signature: str) -> Version | None:
        """Return the loaded version of a family's tool, or None."""


@dataclass(frozen=True)
class Match:
    """A family that may know how: the request's own, or one that is like it. `bound` are the parameters under its names."""

    signature: str
    similarity: float
    method: str  # exact | embedding
    bound: dict[str, Any] | None
    unbound: str = ""


@dataclass(frozen=True)
class Ways:
    """What is wired: a runner's cap by mode, None where it knows none; a mode that is not here is not wired."""

    caps: Mapping[str, int | None]


def match_of(
    state: DispatchState, signature: str, template: str, params: Mapping[str, Any], other: str, similarity: float
) -> Match:
    """Return a family as a match, with the request's parameters bound to its names where that can be done."""
    if other == signature:
        return Match(other, 1.0, "exact", dict(params))
    theirs = state.template(other)
    courses = state.courses(other)
    names = courses[-1].params.keys() if courses else ()
    try:
        return Match(other, similarity, "embedding", bind(template, params, theirs, names))
    except Unbound as why:
        return Match(other, similarity, "embedding", None, str(why))


def offers(
    mode: str,
    matches: Sequence[Match],
    *,
    signature: str,
    state: DispatchState,
    tools: Tools | None,
    environment: Mapping[str, str],
    ways: Ways,
    config: DispatchConfig,
    full: bool = True,
) -> list[Offer]:
    """Return what a mode could build on, best match first. With `full` false the dear checks are left out."""
    if mode == "crystallized":
        found = [_tool(one, signature, state, tools, environment, config) for one in matches]
        return [one for one in found if one is not None]
    if mode == "follower":
        return [_followed(one, signature, state, environment, config, full) for one in matches]
    if mode not in ways.caps:
        return [Offer(mode=mode, refusal="no model is set up for it")]
    cap, mean = ways.caps[mode], state.mean(signature, mode)
    if mode == "mixed":
        guides = [_guided(one, signature, state, config, cap) for one in matches]
        return [one for one in guides if one is not None]
    tally = state.outcomes.tally(signature, signature, mode)
    sure = belief(tally, _LEARNER_PRIOR, config.prior_weight)
    if mode == "learner" and "orchestrator" not in ways.caps:
        sure = max(sure, config.learner)  # there is nobody after it, however often it failed
    return [Offer(mode=mode, confidence=sure, cap_microusd=cap, expected_microusd=mean.microusd, expected_ns=mean.ns)]


def _waiting(match: Match, registry: Registry) -> Offer | None:
    """Return the refusal of a version that is not proven yet, None where there is none."""
    version = registry.shadow(match.signature)
    if version is None:
        return None
    runs = f"{version.agreed} of {version.shadows} runs beside the live mode agreed so far"
    return Offer(
        mode="crystallized", signature=match.signature, method=match.method, similarity=match.similarity,
        refusal=f"version {version.number} of {version.tool} waits in shadow: {runs}",
        tool=version.tool, tool_version=version.number,
    )  # fmt: skip


def guard_missed(version: Version, params: Mapping[str, Any], environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the name of the first guard of a tool that does not hold, and why; None where all do."""
    found = missed(version.made.guards, params, environment)
    return None if found is None else (name_of(found[0]), found[1])


def _tool(
    match: Match,
    signature: str,
    state: DispatchState,
    tools: Tools | None,
    environment: Mapping[str, str],
    config: DispatchConfig,
) -> Offer | None:
    loaded = None if tools is None else tools.active(match.signature)
    if loaded is None or tools is None:
        return None if tools is None else _waiting(match, tools.registry)
    version = tools.registry.version(loaded.tool, loaded.number) or loaded  # the one that counts on
    mean = round(version.duration_ns / version.calls) if version.calls else None
    tested = _tested(version, match, state)
    refusal: str | None = None
    guard: tuple[str, str] | None = None
    if match.bound is None:
        refusal = f"it cannot be called for this request: {match.unbound}"
    else:
        guard = guard_missed(version, match.bound, environment)
        if guard is not None:
            refusal = f"guard {guard[0]!r} is missed: {guard[1]}"
    return Offer(
        mode="crystallized", signature=match.signature, method=match.method, similarity=match.similarity,
        confidence=belief(tested, config.exact_prior, config.prior_weight) * _right(match, signature, state, config),
        refusal=refusal or _unproven(match, signature, state, config),
        expected_microusd=0, expected_ns=mean, tool=version.tool, tool_version=version.number,
        guard=None if guard is None else guard[0],
    )  # fmt: skip


def _tested(version: Version, match: Match, state: DispatchState) -> Tally:
    """Return how a version did: beside other modes, and in calls; its calls here count where the registry lags behind."""
    own = state.outcomes.tally(match.signature, match.signature, "crystallized")
    overturned = state.outcomes.overturned(match.signature, match.signature, "crystallized")
    excused = state.outcomes.excused(match.signature, match.signature, "crystallized")
    successes = max(0, version.successes - overturned)
    calls = Tally(max(successes, version.calls - excused), successes)
    if own.trials > calls.trials:
        calls = own
    return Tally(version.shadows + calls.trials, version.agreed + calls.successes)


def _followed(
    match: Match,
    signature: str,
    state: DispatchState,
    environment: Mapping[str, str],
    config: DispatchConfig,
    full: bool,
) -> Offer:
    mean = state.mean(match.signature, "follower")
    own = state.outcomes.tally(match.signature, match.signature, "follower")
    base = belief(own, config.exact_prior, config.prior_weight)
    offer = Offer(
        mode="follower", signature=match.signature, method=match.method, similarity=match.similarity,
        confidence=base * _right(match, signature, state, config), expected_microusd=0, expected_ns=mean.ns,
    )  # fmt: skip
    if not full:
        return offer
    plan = state.plan(match.signature)
    if isinstance(plan, str):
        return replace(offer, refusal=f"it cannot be followed: {plan}")
    if match.bound is None:
        return replace(offer, refusal=f"it cannot be followed: {match.unbound}")
    offer = replace(offer, execution=plan.lead.execution)
    unproven = _unproven(match, signature, state, config)
    if unproven is not None:
        return replace(offer, refusal=unproven)
    try:
        check(plan, match.bound, environment)
    except CannotFollow as why:
        return replace(offer, refusal=f"it cannot be followed: {why}")
    return offer


def _guided(
    match: Match, signature: str, state: DispatchState, config: DispatchConfig, cap: int | None
) -> Offer | None:
    guide = next((one for one in reversed(state.courses(match.signature)) if one.whole), None)
    if guide is None:
        return None
    mean = state.mean(signature, "mixed")
    prior = config.exact_prior if match.method == "exact" else state.outcomes.curve(match.similarity)
    tally = state.outcomes.tally(signature, match.signature, "mixed")
    return Offer(
        mode="mixed", signature=match.signature, method=match.method, similarity=match.similarity,
        confidence=belief(tally, prior, config.prior_weight), expected_microusd=mean.microusd, cap_microusd=cap,
        expected_ns=mean.ns, execution=guide.execution,
    )  # fmt: skip


def _right(match: Match, signature: str, state: DispatchState, config: DispatchConfig) -> float:
    """Return how likely it is that a match is the right family: 1 for the request's own."""
    if match.method == "exact":
        return 1.0
    return belief(_evidence(match, signature, state), state.outcomes.curve(match.similarity), config.prior_weight)


def _evidence(match: Match, signature: str, state: DispatchState) -> Tally:
    """Return what was seen of this very pair of families: followed, called, or compared on paper."""
    tallies = [state.outcomes.tally(signature, match.signature, mode) for mode in ("follower", "crystallized")]
    return Tally(sum(one.trials for one in tallies), sum(one.successes for one in tallies))


def _unproven(match: Match, signature: str, state: DispatchState, config: DispatchConfig) -> str | None:
    """Say why a like family is not to be trusted without a model yet: sums and averages are asked for in like words."""
    if match.method == "exact":
        return None
    seen = _evidence(match, signature, state).trials
    if seen >= config.near_trials:
        return None
    return (
        f"it is like the goal ({match.similarity:.3f}), and was compared with it {seen} of {config.near_trials} times"
    )
