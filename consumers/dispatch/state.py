"""All that dispatch knows of the past: families of executions, outcomes of modes, vectors of goals. A fold, and its reading."""

from collections import OrderedDict
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from morphogen.consumers.executions import At, Families, Trace, at_of, fetch, frames
from morphogen.schemas.dispatch import DispatchDecided, DispatchFinished
from morphogen.schemas.event import Event, Unknown
from morphogen.schemas.executions import ExecutionFeedback, ExecutionFinished, ExecutionStarted, GoalEmbedded

from .explain import CannotFollow
from .nearest import Nearest
from .outcomes import Outcomes
from .plan import MOST, Plan, plan_of
from .process import has_ended

if TYPE_CHECKING:
    from morphogen.bus import Bus

FAMILIES = ("execution", "goal", "dispatch")
_TOLD_KEPT = 20_000
_RUNNING_KEPT = 1000
_BY_ROTE = frozenset({"follower", "crystallized"})
_LOOKED_AT = 2 * MOST
_TRIALS = frozenset({"success", "failure", "timeout"})


@dataclass(frozen=True)
class Mean:
    """What a mode's trials of a family cost and took on average; None where nothing is known."""

    microusd: int | None = None
    ns: int | None = None


@dataclass
class _Sums:
    microusd: int = 0
    priced: int = 0
    ns: int = 0
    trials: int = 0


class DispatchState:
    """The fold. `seen` takes each event in the log's order; `told` takes what this process has just written itself.

    An event that was told is not counted again when it is read from the log. A plan of a family is kept until a model
    reaches its goal another time.
    """

    def __init__(self) -> None:
        self.families = Families()
        self.outcomes = Outcomes()
        self.nearest = Nearest()
        self.position = 0
        """The sequence of the newest event of the log that was taken."""
        self._tells = 0
        self.templates: dict[str, str] = {}
        self._begun: dict[str, str] = {}
        self._running: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._good: dict[
            str, OrderedDict[str, Trace | None]
        ] = {}  # kept here too: many that were followed push them out
        self._sums: dict[tuple[str, str], _Sums] = {}
        self._waited: dict[str, tuple[int, int]] = {}  # ns of requests that the learner served alone, and their number
        self._told: dict[tuple[str, str], None] = {}
        self._plans: dict[str, tuple[object, Plan | str]] = {}

    def seen(self, event: Event | Unknown, at: At) -> None:
        """Take one event of the log."""
        self.position = max(self.position, at.seq)
        mark = _mark(event)
        if mark is not None and mark in self._told:
            del self._told[mark]
            return
        self._take(event, at)

    def told(self, event: Event, time_ns: int = 0) -> None:
        """Take an event that this process wrote, before the log says it again."""
        mark = _mark(event)
        if mark is not None:
            self._told[mark] = None
            if len(self._told) > _TOLD_KEPT:
                del self._told[next(iter(self._told))]
        self._tells += 1
        self._take(event, At(self.position, self._tells, time_ns))

    @property
    def open(self) -> Mapping[str, DispatchDecided]:
        """Requests that were decided and have not ended, oldest first; some may be served right now."""
        return self.outcomes.open

    @property
    def unfinished(self) -> tuple[DispatchDecided, ...]:
        """Requests whose process has ended before they did, as far as this machine can tell."""
        return tuple(one for one in self.outcomes.open.values() if has_ended(one.by))

    def known(self) -> Set[str]:
        """Return the families that anything was begun for."""
        return self._begun.keys()

    def template(self, signature: str) -> str:
        """Return a family's template, empty where it is not known."""
        return self._begun.get(signature) or self.templates.get(signature, "")

    def mean(self, signature: str, mode: str) -> Mean:
        """Return what a mode's trials of a family came to on average."""
        sums = self._sums.get((signature, mode))
        if sums is None:
            return Mean()
        return Mean(
            round(sums.microusd / sums.priced) if sums.priced else None,
            round(sums.ns / sums.trials) if sums.trials else None,
        )

    def waited(self, signature: str) -> int | None:
        """Return what requests of a family take on average that the learner serves, first to last, in nanoseconds.

        Where it served none, what its recorded runs took stands in; None where there are none.
        """
        ns, requests = self._waited.get(signature, (0, 0))
        return round(ns / requests) if requests else self.mean(signature, "learner").ns

    def courses(self, signature: str) -> list[Trace]:
        """Return the newest executions of a family that succeeded, by a model or a person, the newest last."""
        held = self._good.get(signature)
        if held is None:
            return []
        for execution, trace in held.items():
            if trace is None or not trace.whole:
                held[execution] = self.families.trace(execution)  # what lay in blobs may have been fetched
        return [one for one in held.values() if one is not None and self.families.outcome(one.execution) == "success"]

    def plan(self, signature: str) -> Plan | str:
        """Return how a family is followed, or why it cannot be.

        What was followed, or done by a tool, proves nothing new: only what a model or a person did is a course to follow.
        """
        if signature not in self._begun:
            return "nothing was recorded of it"
        courses = self.courses(signature)
        key = tuple((one.execution, one.whole) for one in courses)
        known = self._plans.get(signature)
        if known is not None and known[0] == key:
            return known[1]
        made: Plan | str
        try:
            made = plan_of(courses)
        except CannotFollow as why:
            made = str(why)
        self._plans[signature] = (key, made)
        return made

    def _take(self, event: Event | Unknown, at: At) -> None:
        self.families.seen(event, at)
        if isinstance(event, DispatchFinished):
            self._served(event)
        self.outcomes.seen(event)
        match event:
            case GoalEmbedded():
                self.templates.setdefault(event.signature, event.template)
                self.nearest.add(event.signature, event.model, event.vector)
            case ExecutionStarted():
                self._begun.setdefault(event.signature, event.template)
                self._running[event.execution] = (event.signature, event.mode)
                if len(self._running) > _RUNNING_KEPT:
                    self._running.popitem(last=False)
            case ExecutionFinished():
                self._ended(event)
            case ExecutionFeedback():
                trace = self.families.trace(event.execution)
                if trace is not None and trace.ok and trace.mode not in _BY_ROTE:
                    self._succeeded(trace.signature, event.execution)

    def _served(self, event: DispatchFinished) -> None:
        """Add what a request took that the learner was chosen for and served; one that something failed at before does not count."""
        decided = self.outcomes.open.get(event.request)
        if decided is not None and event.ok and decided.mode == event.mode == "learner":
            ns, requests = self._waited.get(event.signature, (0, 0))
            self._waited[event.signature] = (ns + event.duration_ns, requests + 1)

    def _succeeded(self, signature: str, execution: str) -> None:
        good = self._good.setdefault(signature, OrderedDict())
        good[execution] = self.families.trace(execution)
        if len(good) > _LOOKED_AT:
            good.popitem(last=False)

    def _ended(self, event: ExecutionFinished) -> None:
        key = self._running.pop(event.execution, None)
        if key is None or event.outcome not in _TRIALS:
            return
        if event.outcome == "success" and key[1] not in _BY_ROTE:
            self._succeeded(key[0], event.execution)
        sums = self._sums.setdefault(key, _Sums())
        sums.trials, sums.ns = sums.trials + 1, sums.ns + event.duration_ns
        if event.cost_microusd is not None:
            sums.priced, sums.microusd = sums.priced + 1, sums.microusd + event.cost_microusd


def read_state(bus: "Bus") -> DispatchState:
    """Return the fold over archive and log up to its present end; values that lie in blobs are fetched."""
    state = DispatchState()
    catch_up(bus, state)
    return state


def catch_up(bus: "Bus", state: DispatchState) -> int:
    """Fold what archive and log hold after `state.position`; return how many events that was. One that broke off can be repeated."""
    count = 0
    for frame in frames(bus, state.position, FAMILIES):
        for seen in frame:
            state.seen(seen.event, at_of(seen))
        count += len(frame)
    if count:
        fetch(bus, state.families)
    return count


def _mark(event: Event | Unknown) -> tuple[str, str] | None:
    """Return what makes an event the same one: its type, and the ids that its writer gave it."""
    if isinstance(event, Unknown):
        return None
    names = ("request", "execution", "number", "mode", "matched", "signature", "model")
    return event.type, "/".join(str(getattr(event, name, "")) for name in names)
