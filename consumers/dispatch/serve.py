"""Serve one request: go the way that was chosen, and, where it fails, the next, until one reaches the goal or none is left."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from morphogen.consumers.crystallizer import GuardMissed, Loader, NoTool
from morphogen.kernels.sandbox import Capabilities, Refused
from morphogen.schemas import CrystalInvoked, Event, sound
from morphogen.schemas.dispatch import DispatchDecided, DispatchFellBack, DispatchFinished
from morphogen.schemas.whole import whole_if_known

from . import record
from .acts import Acts, told
from .decide import Choice, Offer
from .errors import DispatchError
from .follow import follow
from .protocol import Act, Done, Guided, Learner, Orchestrator, Request, Result
from .state import DispatchState

_OF_A_MODEL = frozenset({"mixed", "learner", "orchestrator"})
Again = Callable[[int | None, frozenset[str]], Choice]


@dataclass(frozen=True)
class Wired:
    """Who does what: the tools, and a runner for each mode that asks a model."""

    crystals: Loader | None = None
    learner: Learner | None = None
    guided: Guided | None = None
    orchestrator: Orchestrator | None = None

    def caps(self) -> dict[str, int | None]:
        """Return the cap of each runner that is wired, by mode. Raises DispatchError for one that is no number."""
        runners = {"mixed": self.guided, "learner": self.learner, "orchestrator": self.orchestrator}
        return {
            mode: whole_if_known(f"cap_microusd of the {mode} runner", runner.cap_microusd, DispatchError)
            for mode, runner in runners.items()
            if runner is not None
        }


@dataclass(frozen=True, kw_only=True)
class Went:
    """How one mode went. `refused` where it saw by itself that it should not; `guard` where a tool's guard was missed."""

    ok: bool
    output: Any = None
    error: str | None = None
    refused: bool = False
    guard: str | None = None
    execution: str | None = None
    cost_microusd: int | None = 0
    duration_ns: int = 0


class Serving:
    """One request while it is served. `tell` records an event before it returns."""

    def __init__(
        self,
        wired: Wired,
        acts: Acts,
        request: Request,
        decided: DispatchDecided,
        tell: Callable[[Event], None],
        state: DispatchState,
        *,
        budget_microusd: int | None,
        began: int,
        new_id: Callable[[], str],
    ) -> None:
        self._wired = wired
        self._acts = acts
        self._request = request
        self._decided = decided
        self._tell = tell
        self._state = state
        self._budget = budget_microusd
        self._left = budget_microusd
        self._began = began
        self._new_id = new_id
        self._cost: int | None = 0
        self._wasted = 0  # micro-dollars of modes that failed, as far as they are known
        self._wasted_ns = 0  # what they took
        self._fell: list[DispatchFellBack] = []

    def run(self, choice: Choice, again: Again, bound: Mapping[str, Mapping[str, Any]]) -> Done:
        """Go as chosen. `again` chooses anew among modes that were not tried; `bound` are the parameters by family."""
        self._guard_missed(choice)
        tried: frozenset[str] = frozenset()
        last = choice.mode
        went = Went(ok=False, error=choice.reason)
        offer: Offer | None = None
        try:
            while choice.offer is not None:
                offer, last = choice.offer, choice.offer.mode
                tried |= {last}
                went = self._go(offer, bound)
                self._spend(offer, went)
                if went.ok:
                    break
                choice = again(self._left, tried)
                self._fall(last, choice, went)
        except BaseException as ending:
            self._finish(last, Went(ok=False, error=f"{type(ending).__name__}: it was stopped"), offer)
            raise
        return self._finish(last, went, offer)

    def _go(self, offer: Offer, bound: Mapping[str, Mapping[str, Any]]) -> Went:
        began = time.monotonic_ns()
        if offer.mode == "crystallized":
            went = self._call(offer, bound[offer.signature or ""])
        elif offer.mode == "follower":
            went = self._follow(offer, bound[offer.signature or ""])
        else:
            went = self._ask(offer)
        error = None if went.error is None else record.line(went.error)
        return replace(went, error=error, duration_ns=time.monotonic_ns() - began)

    def _call(self, offer: Offer, params: Mapping[str, Any]) -> Went:
        crystals = self._wired.crystals
        assert crystals is not None
        execution, began = self._begin("crystallized")
        given = self._acts.begin(self._steps(execution))
        request = self._request
        try:
            called = crystals.call(offer.signature or "", params, request.id, request.environment, capabilities=given)
        except GuardMissed as missed:
            self._tell(missed.invoked)
            went = Went(ok=False, error=str(missed), guard=missed.name, execution=execution)
        except NoTool as none:
            went = Went(ok=False, error=str(none), refused=True, execution=execution)
        else:
            self._tell(called.invoked)
            went = Went(ok=called.ok, output=called.value, error=called.error, execution=execution)
        self._end(execution, began, went)
        return went

    def _follow(self, offer: Offer, params: Mapping[str, Any]) -> Went:
        plan = self._state.plan(offer.signature or "")
        if isinstance(plan, str):
            return Went(ok=False, error=plan, refused=True)
        execution, began = self._begin("follower")
        given = self._acts.begin(self._steps(execution))
        followed = follow(plan, params, lambda name, args: _use(given, name, args), self._request.environment)
        went = Went(
            ok=followed.ok, output=followed.output, error=followed.error or followed.refused,
            refused=followed.refused is not None, execution=execution,
        )  # fmt: skip
        self._end(execution, began, went)
        return went

    def _ask(self, offer: Offer) -> Went:
        given = self._acts.begin()
        request = replace(self._request, capabilities=given, done=self._acts.changes)
        try:
            result = self._asked(offer, request)
        except Exception as failure:  # noqa: BLE001 - a runner may fail in any way: the next mode is tried
            return Went(ok=False, error=f"{type(failure).__name__}: {sound(failure)}", cost_microusd=None)
        error = result.error if result.ok else result.error or "the goal was not reached"
        return Went(
            ok=result.ok, output=result.output, error=error, execution=result.execution,
            cost_microusd=result.cost_microusd,
        )  # fmt: skip

    def _asked(self, offer: Offer, request: Request) -> Result:
        wired, left = self._wired, self._left
        if offer.mode == "mixed":
            guide = self._state.families.trace(offer.execution or "")
            assert wired.guided is not None
            assert guide is not None
            return _result(wired.guided.run(request, guide, left))
        runner = wired.learner if offer.mode == "learner" else wired.orchestrator
        assert runner is not None
        return _result(runner.run(request, left))

    def _begin(self, mode: str) -> tuple[str, int]:
        execution = self._new_id()
        self._tell(record.started(execution, self._request, mode, self._left))
        return execution, time.monotonic_ns()

    def _steps(self, execution: str) -> Callable[[int, Act], None]:
        return lambda number, act: self._tell(record.step(execution, number, act))

    def _end(self, execution: str, began: int, went: Went) -> None:
        self._tell(
            record.finished(
                execution,
                ok=went.ok,
                output=went.output,
                error=went.error,
                steps=len(self._acts.of_mode),
                duration_ns=time.monotonic_ns() - began,
                cancelled=went.refused or went.guard is not None,
            )
        )

    def _spend(self, offer: Offer, went: Went) -> None:
        cost = went.cost_microusd
        self._cost = None if cost is None or self._cost is None else self._cost + cost
        if not went.ok:
            self._wasted += cost or 0
            self._wasted_ns += went.duration_ns
        if self._left is not None and offer.mode in _OF_A_MODEL:
            spent = cost if cost is not None else offer.expected_microusd
            if spent is None:
                spent = offer.cap_microusd if offer.cap_microusd is not None else self._left  # it may have been all
            self._left = max(0, self._left - spent)

    def _guard_missed(self, choice: Choice) -> None:
        """Count a guard that kept the family's own tool out before anything was run."""
        missed = choice.missed
        if missed is None or missed.tool is None or missed.tool_version is None:
            return
        request = self._request.id
        self._tell(
            CrystalInvoked(
                tool=missed.tool,
                number=missed.tool_version,
                request=request,
                ok=False,
                guard=missed.guard,
                error=missed.refusal,
            )
        )
        self._fall("crystallized", choice, Went(ok=False, error=missed.refusal, guard=missed.guard))

    def _fall(self, mode: str, to: Choice, went: Went) -> None:
        done = [told(act) for act in self._acts.of_mode if act.changes and not act.again and act.ok]
        event = DispatchFellBack(
            request=self._request.id, mode=mode, to=None if to.offer is None else to.mode,
            reason=went.error or "the goal was not reached", guard=went.guard, refused=went.refused, done=done,
            execution=went.execution, duration_ns=went.duration_ns, cost_microusd=went.cost_microusd,
        )  # fmt: skip
        self._fell.append(event)
        self._tell(event)

    def _finish(self, mode: str, went: Went, offer: Offer | None) -> Done:
        duration = time.monotonic_ns() - self._began
        signature = self._request.signature
        mean, waited = self._state.mean(signature, "learner"), self._state.waited(signature)
        saved_ns = saved = None
        if went.ok:
            instead = mode not in {"learner", "orchestrator"}  # a loop saves nothing; what failed before it was wasted
            if mean.microusd is not None and self._cost is not None:
                saved = mean.microusd - self._cost if instead else -self._wasted
            if waited is not None:
                saved_ns = waited - duration if instead else -self._wasted_ns
        tool, version = (
            (offer.tool, offer.tool_version) if offer is not None and mode == "crystallized" else (None, None)
        )
        finished = DispatchFinished(
            request=self._request.id, signature=signature, mode=mode, ok=went.ok, execution=went.execution, tool=tool,
            tool_version=version, error=None if went.ok else went.error, duration_ns=duration, cost_microusd=self._cost,
            saved_microusd=saved, saved_ns=saved_ns,
        )  # fmt: skip
        self._tell(finished)
        return Done(
            request=finished.request, ok=went.ok, mode=mode, output=went.output, error=finished.error,
            execution=went.execution, tool=tool, tool_version=version, cost_microusd=self._cost, duration_ns=duration,
            saved_microusd=saved, saved_ns=saved_ns, decided=self._decided, fell_back=tuple(self._fell),
            acts=self._acts.all,
        )  # fmt: skip


def _result(found: object) -> Result:
    """Return what a runner returned as a Result: a runner that knows nothing of dispatch has one of its own with these fields."""
    if isinstance(found, Result):
        return found
    if not hasattr(found, "ok"):
        raise DispatchError(f"the runner returned a {type(found).__qualname__}, no Result")
    return Result(**{one.name: getattr(found, one.name) for one in fields(Result) if hasattr(found, one.name)})


def _use(given: Capabilities, name: str, args: dict[str, Any]) -> Any:
    declared = given.functions.get(name)
    if declared is None:
        raise Refused(f"there is no tool {name!r} here; declare it in the capabilities")
    return declared.function(**args)
