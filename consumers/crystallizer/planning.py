"""Which families a tool is made for next: the candidates, in order, and those that wait for more executions.

Pure. The numbers are those of the view `crystallization_candidates`, over the same log.
"""

from collections.abc import Iterable, Mapping

import msgspec

from morphogen.consumers.executions import Families, Family, Trace

from .registry import Attempt, Registry

USES = 5
SUCCESS = 0.95
FEWEST = 5  # executions that a tool is made from and proven on, together
GROWTH = 1.5  # times as many executions as a failed try had, before another one
AGAIN = "again"
REASONED = frozenset({"learner", "mixed", "orchestrator"})  # modes in which somebody reasoned
FOLLOWED = frozenset({"follower"})  # repeats a course with real tools; what a tool did itself is never learned from
INDEPENDENT = 2  # executions in which somebody reasoned, at the least


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A family that a tool would pay for. `priority` is the sum that the view documents."""

    signature: str
    template: str
    uses: int
    successes: int
    success: float
    wilson_lower: float
    learner_microusd: float | None
    priority: float


def priority(family: Family) -> float:
    """Return the order in which families are taken: uses, what one run of the learner costs in dollars, and success."""
    dollars = (family.learner_microusd or 0.0) / 1e6
    return family.uses * 10 * 0.5 + dollars * 100 * 0.3 + family.success * 100 * 0.2


def candidates(families: Iterable[Family], registry: Registry) -> list[Candidate]:
    """Return the families that are done often and well and have no active tool, the most urgent first."""
    found = [
        Candidate(
            signature=one.signature,
            template=one.template,
            uses=one.uses,
            successes=one.successes,
            success=one.success,
            wilson_lower=one.lower,
            learner_microusd=one.learner_microusd,
            priority=priority(one),
        )
        for one in families
        if one.uses >= USES and one.success >= SUCCESS and registry.active(one.signature) is None
    ]
    return sorted(found, key=lambda one: (-one.priority, one.signature))


def learnable(family: Family, after_ns: int = 0, *, modes: frozenset[str] = REASONED | FOLLOWED) -> list[Trace]:
    """Return the executions that a tool may be made from: whole, successful, in the log after a time; oldest first."""
    return [one for one in family.good if one.whole and one.mode in modes and one.at.stored_ns > after_ns]


def reasoned(trace: Trace) -> bool:
    """Tell whether somebody reasoned in an execution, rather than repeat another."""
    return trace.mode in REASONED


def tried(attempts: Iterable[Attempt], signature: str, maker: str, *, anew: bool = False) -> int:
    """Return how many executions the largest try that came to nothing had; 0 where there was none.

    Tries to make a tool anew are counted by themselves, as they may learn from newer executions only.
    """
    sizes = [
        len(one.requested.made_from) + len(one.requested.held_out)
        for one in attempts
        if one.failed is not None
        and one.requested is not None
        and one.requested.signature == signature
        and one.requested.maker == maker
        and (one.requested.by == AGAIN) == anew
    ]
    return max(sizes, default=0)


def worth_trying(count: int, before: int) -> bool:
    """Tell whether a family with `count` executions should be tried when a try with `before` came to nothing."""
    return count >= max(FEWEST, before * GROWTH)


def chosen(
    families: Families,
    registry: Registry,
    makers: Iterable[str],
    top: int = 3,
    *,
    since_ns: int = 0,
    retired_ns: Mapping[str, int] | None = None,
) -> list[tuple[Candidate, list[str]]]:
    """Return the first `top` candidates that wait for nothing, each with the makers that have not failed on as much.

    A family that nobody pursued after `since_ns` waits. So does one whose tool was retired, at the time that `retired_ns` has by its
    signature, until it was reasoned out often enough again.
    """
    found: list[tuple[Candidate, list[str]]] = []
    known = list(makers)
    for candidate in candidates(families, registry):
        family, tool = families.family(candidate.signature), registry.of(candidate.signature)
        if family is None or family.last_ns < since_ns:
            continue
        if tool is not None:
            if tool.newest.state != "retired":
                continue  # a version of it is on its way, or it is made anew when newer executions ask for it
            if len(learnable(family, (retired_ns or {}).get(candidate.signature, 0))) < FEWEST:
                continue
        count = len(learnable(family))
        able = [
            maker
            for maker in known
            if worth_trying(count, tried(registry.attempts.values(), candidate.signature, maker))
        ]
        if able:
            found.append((candidate, able))
        if len(found) == top:
            break
    return found
