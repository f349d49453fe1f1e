"""What is known of each version since it was registered, with its newest runs: a fold over the log, and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from morphogen.consumers.executions import wilson_lower
from morphogen.schemas import (
    CrystalInvoked,
    CrystalMoved,
    CrystalRegistered,
    CrystalShadowed,
    Event,
    ExecutionFeedback,
    ExecutionStarted,
)

from .moves import legal

_REQUESTS = 20_000  # newest requests by which a later judgement finds the version that served them


@dataclass(frozen=True)
class Career:
    """What is known of one version. `recent` are its newest judged runs by request, oldest first; true is success."""

    tool: str
    signature: str
    number: int
    attempt: str
    state: str = "shadow"
    parent: int | None = None
    born_ns: int = 0
    used_ns: int = 0
    moved_ns: int = 0  # when it came to its state, and
    turn: int = 0  # by which move of all; 0 where it was never moved
    left: int = 0  # the move by which it was active last; 0 where it never was
    reason: str = ""  # of its newest move
    replayed: int = 0  # held-out executions that it reproduced to be registered
    shadows: int = 0
    agreed: int = 0
    disagreed: str = ""  # the reason of the newest disagreement
    calls: int = 0
    failed: int = 0
    misses: int = 0
    recent: tuple[tuple[str, bool], ...] = ()

    @property
    def trials(self) -> int:
        """Held-out executions and shadow runs."""
        return self.replayed + self.shadows

    @property
    def successes(self) -> int:
        """Those of `trials` that it reproduced."""
        return self.replayed + self.agreed

    @property
    def failing(self) -> int:
        """How many of its newest runs in a row have failed."""
        count = 0
        for _, ok in reversed(self.recent):
            if ok:
                break
            count += 1
        return count

    def lower(self) -> float:
        """Return the bound of what it was held to before it was promoted."""
        return wilson_lower(self.successes, self.trials)

    def newest(self, window: int) -> tuple[int, int]:
        """Return (successes, trials) of its newest runs, filled up with held-out ones where it had few."""
        judged = [ok for _, ok in self.recent[-window:]]
        filled = min(self.replayed, window - len(judged))
        return sum(judged) + filled, len(judged) + filled


@dataclass
class Careers:
    """The careers of all versions: a fold over crystal.* and execution.* events, in the order of the log."""

    versions: dict[tuple[str, int], Career] = field(default_factory=dict)
    kept: int = 200  # judged runs for each version
    _turns: int = 0  # moves that were made
    _served: dict[str, tuple[str, int]] = field(default_factory=dict)  # request -> the version that was called
    _executions: dict[str, str] = field(default_factory=dict)  # execution -> request

    def seen(self, event: Event, time_ns: int) -> None:
        """Take one event, stored at `time_ns`; what is of no concern is passed over."""
        match event:
            case CrystalRegistered():
                self._registered(event, time_ns)
            case CrystalMoved():
                if event.now != "active" or all(one.state != "active" for one in self.of(event.tool)):
                    self._turns += 1
                    self._change(event.tool, event.number, lambda was: _moved(was, event, time_ns, self._turns))
            case CrystalShadowed():
                self._change(event.tool, event.number, lambda was: self._shadowed(was, event, time_ns))
            case CrystalInvoked():
                self._change(event.tool, event.number, lambda was: self._invoked(was, event, time_ns))
                if event.guard is None:
                    _remember(self._served, event.request, (event.tool, event.number))
            case ExecutionStarted(mode="crystallized", request=str() as request):
                _remember(self._executions, event.execution, request)
            case ExecutionFeedback():
                self._judged(event)

    def of(self, tool: str) -> list[Career]:
        """Return the versions of a tool, by number."""
        return sorted((one for one in self.versions.values() if one.tool == tool), key=lambda one: one.number)

    def tools(self) -> list[str]:
        """Return the names of all tools, sorted."""
        return sorted({one.tool for one in self.versions.values()})

    def _registered(self, event: CrystalRegistered, time_ns: int) -> None:
        key = (event.tool, event.number)
        if key in self.versions:
            return  # told twice
        replayed = event.provenance.get("replayed")
        self.versions[key] = Career(
            tool=event.tool,
            signature=event.signature,
            number=event.number,
            attempt=event.attempt,
            parent=event.parent,
            born_ns=time_ns,
            used_ns=time_ns,
            replayed=replayed if isinstance(replayed, int) and replayed > 0 else 0,
        )

    def _change(self, tool: str, number: int, change: Callable[[Career], Career]) -> None:
        was = self.versions.get((tool, number))
        if was is not None:
            self.versions[tool, number] = change(was)

    def _shadowed(self, was: Career, event: CrystalShadowed, time_ns: int) -> Career:
        return replace(
            was,
            shadows=was.shadows + 1,
            agreed=was.agreed + event.agreed,
            disagreed=was.disagreed if event.agreed else event.reason or "its result was another",
            used_ns=max(was.used_ns, time_ns),
            recent=self._with(was, event.request, event.agreed),
        )

    def _invoked(self, was: Career, event: CrystalInvoked, time_ns: int) -> Career:
        if event.guard is not None:
            return replace(was, misses=was.misses + 1)
        return replace(
            was,
            calls=was.calls + 1,
            failed=was.failed + (not event.ok),
            used_ns=max(was.used_ns, time_ns),
            recent=self._with(was, event.request, event.ok),
        )

    def _judged(self, event: ExecutionFeedback) -> None:
        request = self._executions.get(event.execution)
        key = None if request is None else self._served.get(request)
        if request is None or key is None or key not in self.versions:
            return
        was, ok = self.versions[key], event.outcome == "success"
        before = dict(was.recent).get(request)
        failed = was.failed + (0 if before is None or before == ok else 1 if before else -1)
        self.versions[key] = replace(was, failed=failed, recent=self._with(was, request, ok))

    def _with(self, was: Career, request: str, ok: bool) -> tuple[tuple[str, bool], ...]:
        """Return the newest runs with one more; a later judgement of a run takes its place."""
        if any(key == request for key, _ in was.recent):
            return tuple((key, ok if key == request else before) for key, before in was.recent)
        return (*was.recent, (request, ok))[-self.kept :]


def _moved(was: Career, event: CrystalMoved, time_ns: int, turn: int) -> Career:
    """Return a version in its new state; a move that the table does not know changes nothing."""
    if event.was != was.state or not legal(was.state, event.now):
        return was
    left = turn if was.state == "active" else was.left
    if event.now == "shadow":  # another try: what it did before is not held against it
        was = replace(was, shadows=0, agreed=0, disagreed="", recent=())
    return replace(was, state=event.now, moved_ns=time_ns, turn=turn, left=left, reason=event.reason)


def _remember(into: dict[str, Any], key: str, value: Any) -> None:
    """Keep the newest few, so that a log without end takes a bounded room."""
    into.pop(key, None)
    into[key] = value
    if len(into) > _REQUESTS:
        del into[next(iter(into))]
