"""What came of each mode, for whom, and of each comparison on paper: the evidence that confidence is made of. A pure fold.

An outcome belongs to (the request's family, the family that it was matched to, the mode). The newest feedback on an execution counts
before what the mode said of itself. A mode that refused by itself, or that a guard kept out, has no outcome; nor has a cheap mode that failed at what
no other mode could do either: the goal was out of reach.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace

from morphogen.schemas.dispatch import DispatchCompared, DispatchDecided, DispatchFellBack, DispatchFinished
from morphogen.schemas.event import Event, Unknown
from morphogen.schemas.executions import ExecutionFeedback

from .calibrate import Curve, Tally, fit

Key = tuple[str, str, str]
_OPEN_KEPT, _RUNS_KEPT, _NEAR_KEPT = 1000, 5000, 5000


@dataclass(frozen=True)
class _Run:
    key: Key
    good: bool
    near: float | None


class Outcomes:
    """The fold. `tally` and `curve` ask; `open` holds the requests that were decided and have not ended."""

    def __init__(self) -> None:
        self.open: OrderedDict[str, DispatchDecided] = OrderedDict()
        self.finished = 0
        self.fell_back = 0
        self._tallies: dict[Key, Tally] = {}
        self._near: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._feedback: dict[str, bool] = {}
        self._overturned: dict[Key, int] = {}
        self._excused: dict[Key, int] = {}
        self._failed: dict[str, list[DispatchFellBack]] = {}
        self._curve: Curve | None = None

    def seen(self, event: Event | Unknown) -> None:
        """Take one event; others than those of dispatch, and feedback, are passed over."""
        match event:
            case DispatchDecided():
                self.open[event.request] = event
                if len(self.open) > _OPEN_KEPT:
                    request, _ = self.open.popitem(last=False)
                    self._failed.pop(request, None)
            case DispatchFellBack():
                self.fell_back += 1
                decided = self.open.get(event.request)
                if decided is not None and not event.refused and event.guard is None:
                    self._failed.setdefault(event.request, []).append(event)
            case DispatchFinished():
                self.finished += 1
                decided = self.open.pop(event.request, None)
                if decided is not None:
                    self._ended(decided, event)
            case DispatchCompared():
                key = (event.signature, event.matched, event.mode)
                near = event.similarity if event.method == "embedding" else None
                self._count(f"{event.request}/{event.matched}/{event.mode}/paper", _Run(key, event.agreed, near))
            case ExecutionFeedback():
                self._judged(event.execution, event.outcome == "success")

    def tally(self, signature: str, matched: str, mode: str) -> Tally:
        """Return the outcomes of a mode for requests of one family on another, or on itself."""
        return self._tallies.get((signature, matched, mode), Tally())

    def overturned(self, signature: str, matched: str, mode: str) -> int:
        """Return how many successes of a mode were judged failures later."""
        return self._overturned.get((signature, matched, mode), 0)

    def excused(self, signature: str, matched: str, mode: str) -> int:
        """Return how many failures of a mode do not count: no other mode reached the goal either."""
        return self._excused.get((signature, matched, mode), 0)

    @property
    def curve(self) -> Curve:
        """The probability that a like family is the right one, by its similarity."""
        if self._curve is None:
            self._curve = fit(self._near.values())
        return self._curve

    @property
    def near(self) -> tuple[tuple[float, bool], ...]:
        """The outcomes of near matches: (similarity, whether it was right)."""
        return tuple(self._near.values())

    def _ended(self, decided: DispatchDecided, event: DispatchFinished) -> None:
        for failed in self._failed.pop(event.request, ()):
            if event.ok or failed.mode in _LOOPS:
                self._outcome(decided, failed.mode, _name(failed), good=False)
            else:
                key = (decided.signature, _matched(decided, failed.mode), failed.mode)
                self._excused[key] = self._excused.get(key, 0) + 1
        if event.ok:
            self._outcome(decided, event.mode, _name(event), good=True)

    def _outcome(self, decided: DispatchDecided, mode: str, name: str, *, good: bool) -> None:
        matched = _matched(decided, mode)
        near = decided.similarity if matched != decided.signature and mode in _ON_LIKENESS else None
        judged = self._feedback.get(name, good)
        key = (decided.signature, matched, mode)
        if name not in self._runs:
            self._overturned[key] = self._overturned.get(key, 0) + (good and not judged)
        self._count(name, _Run(key, judged, near))

    def _count(self, name: str, run: _Run) -> None:
        if name in self._runs:
            return
        self._runs[name] = run
        if len(self._runs) > _RUNS_KEPT:
            self._runs.popitem(last=False)
        self._tallies[run.key] = self._tallies.get(run.key, Tally()).plus(run.good)
        if run.near is not None:
            self._near[name] = (run.near, run.good)
            if len(self._near) > _NEAR_KEPT:
                self._near.popitem(last=False)
            self._curve = None

    def _judged(self, execution: str, good: bool) -> None:
        self._feedback[execution] = good
        run = self._runs.get(execution)
        if run is None or run.good == good:
            return
        self._overturned[run.key] = max(0, self._overturned.get(run.key, 0) + (1 if run.good else -1))
        self._runs[execution] = replace(run, good=good)
        self._tallies[run.key] = self._tallies[run.key].minus(run.good).plus(good)
        if run.near is not None:
            self._near[execution] = (run.near, good)
            self._curve = None


def _matched(decided: DispatchDecided, mode: str) -> str:
    """Return the family that a mode built on; what a fallback built on is not told, and counts as the request's own."""
    return decided.matched if mode == decided.mode and decided.matched is not None else decided.signature


def _name(event: DispatchFellBack | DispatchFinished) -> str:
    return event.execution or f"{event.request}/{event.mode}"


_LOOPS = frozenset({"learner", "orchestrator"})
_ON_LIKENESS = frozenset({"crystallized", "follower"})  # a model that is guided finds its way in spite of a bad guide
