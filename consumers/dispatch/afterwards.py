"""What a served request teaches: what the cheaper modes would have done is compared on paper, and a waiting tool runs beside."""

from collections.abc import Mapping, Sequence
from typing import Any

from morphogen.consumers.crystallizer import CrystalError, Loader, Tape
from morphogen.schemas import CrystalShadowed
from morphogen.schemas.dispatch import DispatchCompared

from .acts import Watched
from .explain import same
from .follow import Compared, Spelled, would_agree
from .plan import Plan
from .protocol import Act, Done, Request
from .record import line
from .weigh import Match

MOST = 3  # families that are compared for one request


def compare(
    request: Request,
    done: Done,
    acts: Sequence[Act],
    matches: Sequence[Match],
    plans: Mapping[str, Plan | str],
    known: Mapping[str, Watched],
    crystals: Loader | None,
) -> list[DispatchCompared]:
    """Return what following each matched family, or calling the tool of one that is merely like, would have come to.

    Nothing is called for real: a step is answered by what the mode that served was answered. What cannot be said is left out.
    """
    found: list[DispatchCompared] = []
    for match in [one for one in matches if one.bound is not None][:MOST]:
        assert match.bound is not None
        plan = plans.get(match.signature)
        if plan is not None and not isinstance(plan, str):
            seen = would_agree(plan, match.bound, acts, done.output, _spelling(known), request.environment)
            if seen.agreed is not None:
                found.append(_event(request, match, "follower", seen, plan.lead.execution))
        if match.method == "embedding" and crystals is not None:
            called = _called(request, match.signature, match.bound, acts, done.output, crystals)
            if called is not None:
                found.append(_event(request, match, "crystallized", called, None))
    return found


def shadow(request: Request, done: Done, acts: Sequence[Act], crystals: Loader) -> CrystalShadowed | None:
    """Run the tool that waits for the request's family on a tape of what was done; None where none waits or may run."""
    if crystals.shadowing(request.signature) is None:
        return None
    return crystals.shadow(
        request.signature, request.params, request.id, request.environment, steps=acts, output=done.output,
        served_ns=done.duration_ns,
    )  # fmt: skip


def _called(
    request: Request, family: str, params: Mapping[str, Any], acts: Sequence[Act], output: Any, crystals: Loader
) -> Compared | None:
    """Call a like family's tool on a tape; its own counts are left as they are: the goal was another."""
    if crystals.active(family) is None:
        return None
    tape = Tape(acts, request.capabilities)
    try:
        called = crystals.call(family, params, request.id, request.environment, capabilities=tape.capabilities)
    except CrystalError:
        return None
    fault = tape.fault() or (None if called.ok else called.error)
    if fault is not None:
        return Compared(False, fault)
    if not same(called.value, output):
        return Compared(False, "the tool would have answered otherwise")
    return Compared(True, "the same changes and the same answer")


def _event(request: Request, match: Match, mode: str, seen: Compared, execution: str | None) -> DispatchCompared:
    return DispatchCompared(
        request=request.id, signature=request.signature, matched=match.signature, mode=mode, method=match.method,
        agreed=bool(seen.agreed), reason=line(seen.reason), similarity=match.similarity, execution=execution,
    )  # fmt: skip


def _spelling(known: Mapping[str, Watched]) -> Spelled:
    return lambda name, args: known[name].without_defaults(args) if name in known else dict(args)
