"""The decision: of all ways that a request could go, the cheapest that is likely enough to reach the goal. Pure.

Each mode brings its *offers* (what it would build on, how likely it is to succeed, what it would cost, or why it cannot). The modes are
gone through from the cheapest to the dearest; every one that is not taken says why.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from morphogen.schemas.dispatch import Alternative, DispatchDecided
from morphogen.schemas.executions import MODES

from .config import DispatchConfig

NO_MODE = "none"


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A way to go. `refusal` says why it cannot be gone; `similarity` is 1 for the request's own family.

    Where the cost is not known, `cap_microusd` is the most that it can be.
    """

    mode: str
    signature: str | None = None
    method: str = "none"  # exact | embedding | none
    similarity: float | None = None
    confidence: float | None = None
    refusal: str | None = None
    expected_microusd: int | None = None
    cap_microusd: int | None = None
    expected_ns: int | None = None
    execution: str | None = None
    tool: str | None = None
    tool_version: int | None = None
    guard: str | None = None  # of the tool, that is missed


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked. `forced` is a mode to begin with, whatever its confidence; guards and budget hold for it too."""

    request: str
    goal: str
    signature: str
    params: Mapping[str, Any] = field(default_factory=dict)
    budget_microusd: int | None = None
    forced: str | None = None
    by: str = ""


@dataclass(frozen=True)
class Choice:
    """What was taken, if anything, and all five modes with their reasons."""

    offer: Offer | None
    alternatives: tuple[Alternative, ...]
    missed: Offer | None = None
    """The own family's tool, where a guard kept it out."""

    @property
    def mode(self) -> str:
        """The mode that is taken, or `none`."""
        return NO_MODE if self.offer is None else self.offer.mode

    @property
    def reason(self) -> str:
        """Why it is taken, or why nothing is."""
        if self.offer is not None:
            return next(one.reason for one in self.alternatives if one.taken)
        return "; ".join(f"{one.mode}: {one.reason}" for one in self.alternatives)


Offers = Callable[[str, bool], Sequence[Offer]]
"""Gives the offers of a mode, best first; with False, without the dear checks, for a mode that is not needed."""


def choose(
    offers: Offers,
    config: DispatchConfig,
    *,
    left_microusd: int | None = None,
    forced: str | None = None,
    tried: Set[str] = frozenset(),
) -> Choice:
    """Take the first mode, in order of cost, that was not tried and whose offer holds; say why each other one lost."""
    taken: Offer | None = None
    told: list[Alternative] = []
    missed: Offer | None = None
    start = MODES.index(forced) if forced in MODES else 0
    for at, mode in enumerate(MODES):
        if mode in tried:
            told.append(Alternative(mode=mode, taken=False, reason="it was tried for this request"))
            continue
        if at < start:
            told.append(Alternative(mode=mode, taken=False, reason=f"the request asks for {forced}"))
            continue
        found = list(offers(mode, taken is None))
        best = max(found, key=lambda one: one.confidence or 0.0, default=None)
        if taken is not None:
            told.append(_told(mode, best, f"{taken.mode} is cheaper and likely enough"))
            continue
        missed = missed or next((one for one in found if one.guard is not None and one.method == "exact"), None)
        reasons = [(one, against(one, config, left_microusd, is_forced=mode == forced)) for one in found]
        good = next((one for one, why in reasons if why is None), None)
        if good is not None:
            taken = good
            told.append(_told(mode, good, _for(good, config, is_forced=mode == forced), taken=True))
        elif not reasons:
            told.append(Alternative(mode=mode, taken=False, reason="there is nothing that it could build on"))
        else:
            told.append(_told(mode, reasons[0][0], _lost(reasons)))
    return Choice(taken, tuple(told), missed)


def decide(
    asked: Asked, offers: Offers, config: DispatchConfig, *, match_ns: int = 0
) -> tuple[DispatchDecided, Choice]:
    """Return the decision on a request as an event, and the choice that it tells of."""
    choice = choose(offers, config, left_microusd=asked.budget_microusd, forced=asked.forced)
    offer = choice.offer
    event = DispatchDecided(
        request=asked.request, goal=asked.goal, signature=asked.signature, mode=choice.mode,
        method="none" if offer is None else offer.method, reason=choice.reason, params=dict(asked.params),
        matched=None if offer is None else offer.signature,
        similarity=None if offer is None else offer.similarity,
        confidence=None if offer is None else offer.confidence,
        execution=None if offer is None else offer.execution,
        tool=None if offer is None else offer.tool,
        tool_version=None if offer is None else offer.tool_version,
        alternatives=list(choice.alternatives), thresholds=config.thresholds, budget_microusd=asked.budget_microusd,
        match_ns=match_ns, by=asked.by,
    )  # fmt: skip
    return event, choice


def _threshold(mode: str, config: DispatchConfig) -> float:
    return config.thresholds.get(mode, 0.0)


def against(offer: Offer, config: DispatchConfig, left: int | None, *, is_forced: bool) -> str | None:
    """Return why an offer cannot be taken with `left` micro-dollars left; None where it can."""
    if offer.refusal is not None:
        return offer.refusal
    least = _threshold(offer.mode, config)
    if not is_forced and offer.confidence is not None and not offer.confidence >= least:
        return f"its confidence {offer.confidence:.3f} is below {least:g}"
    if left is None:
        return None
    if offer.expected_microusd is not None:
        if offer.expected_microusd > left:
            return f"it is expected to cost {offer.expected_microusd} micro-dollars, and {left} are left"
    elif offer.cap_microusd is not None and offer.cap_microusd > left:
        return f"it may cost {offer.cap_microusd} micro-dollars, and {left} are left"
    return None


def _lost(reasons: Sequence[tuple[Offer, str | None]]) -> str:
    """Say why the first offer lost, and why the likest of the others did."""
    (_, why), *rest = reasons
    like = next((other for one, other in rest if one.method == "embedding"), None)
    return f"{why}; of a like goal: {like}" if like is not None else why or ""


def _for(offer: Offer, config: DispatchConfig, *, is_forced: bool) -> str:
    if is_forced:
        return f"the request asks for {offer.mode}"
    if offer.method == "none":
        return "no cheaper mode holds"
    sure = "" if offer.confidence is None else f" with confidence {offer.confidence:.3f}"
    if offer.method == "exact":
        return f"the goal's own family{sure}"
    return f"a family like the goal's (similarity {offer.similarity or 0.0:.3f}){sure}"


def _told(mode: str, offer: Offer | None, reason: str, *, taken: bool = False) -> Alternative:
    if offer is None:
        return Alternative(mode=mode, taken=taken, reason=reason)
    return Alternative(
        mode=mode, taken=taken, reason=reason, confidence=offer.confidence,
        expected_microusd=offer.expected_microusd, expected_ns=offer.expected_ns,
    )  # fmt: skip
