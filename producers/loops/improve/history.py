"""Recorded runs of a program, read from the log: what each step was given, gave and took, and what each sweep measured."""

import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from morphogen.schemas import (
    Frame,
    LoopDecided,
    LoopRecorded,
    LoopStarted,
    LoopVerdict,
    StepFinished,
    StepStarted,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    decode_event,
    encode,
)
from morphogen.schemas.llm import LlmQueried

from .errors import ImproveError

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedStep:
    """One attempt at a step, that came to its end. `step` is its name in the program; blocks have no action."""

    path: str
    step: str
    number: int
    action: str = ""
    arguments_sha256: str = ""
    effect: str = "pure"
    ok: bool = True
    output: Any = None
    planned: bool = False
    error: str | None = None
    duration_ns: int = 0

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.duration_ns / _NS


@dataclass(slots=True, kw_only=True)
class RecordedSweep:
    """A sweep of a run: what was asked for, and every configuration that came to an end."""

    started: SweepStarted
    trials: list[TrialFinished] = field(default_factory=list)
    finished: SweepFinished | None = None


@dataclass(slots=True, kw_only=True)
class RecordedRun:
    """A run as the log holds it."""

    run: str
    loop: str
    kind: str
    sha256: str
    live: bool
    status: str
    started: LoopStarted
    steps: tuple[RecordedStep, ...] = ()
    decisions: tuple[LoopDecided, ...] = ()
    verdict: LoopVerdict | None = None
    sweeps: dict[str, RecordedSweep] = field(default_factory=dict)
    queried: tuple[LlmQueried, ...] = ()
    traced: dict[str, list[tuple[str, dict[str, Any]]]] = field(default_factory=dict)
    """Trace items by the path of the step that gave them: event type and body."""

    @property
    def actions(self) -> tuple[RecordedStep, ...]:
        """The steps that did something, blocks left out, in the order begun."""
        return tuple(step for step in self.steps if step.action)


def read_run(bus: "Bus", run: str) -> RecordedRun:
    """Read one run from the log and the archive. Raises UnknownRun."""
    from ..journal import read_history

    begun: dict[str, StepStarted] = {}
    steps: list[RecordedStep] = []
    decisions: list[LoopDecided] = []
    sweeps: dict[str, RecordedSweep] = {}
    queried: list[LlmQueried] = []
    started: list[LoopStarted] = []
    traced: dict[str, list[tuple[str, dict[str, Any]]]] = {}

    def see(frame: Frame) -> None:
        if frame.replay is not None or frame.writer != history_writer:
            return
        for record in frame.records:
            match decode_event(record.type, record.version, record.body):
                case LoopStarted() as event:
                    started.append(event)
                case StepStarted() as event:
                    begun[event.path] = event
                case StepFinished() as event if event.path in begun:
                    steps.append(_step(begun[event.path], event))
                case LoopDecided() as event:
                    decisions.append(event)
                case LoopRecorded() as event:
                    for one in event.events:
                        if one.type.startswith("trace.") and isinstance(one.body, dict):
                            traced.setdefault(event.path, []).append((one.type, one.body))
                            continue
                        _carried(decode_event(one.type, one.version, encode(one.body)), sweeps, queried)
                case _:
                    pass

    from ..lanes import writer_of

    history_writer = writer_of(run)
    history = read_history(bus, run, see=see)
    state = history.state
    return RecordedRun(
        run=run,
        loop=state.loop,
        kind=state.kind,
        sha256=state.sha256,
        live=state.live,
        status=state.status,
        started=started[0],
        steps=tuple(sorted(steps, key=lambda step: step.number)),
        decisions=tuple(decisions),
        verdict=state.verdict,
        sweeps=sweeps,
        queried=tuple(queried),
        traced=traced,
    )


def find_runs(bus: "Bus", patterns: Sequence[str] = (), *, program: str | None = None) -> list[str]:
    """Return the names of runs of loops, oldest first: those that match a pattern, or, without one, those of a file name.

    Raises ImproveError where a pattern matches none.
    """
    seen: dict[str, str] = {}
    for one in bus.past(family="loop"):
        if isinstance(one.event, LoopStarted):
            seen.setdefault(one.frame.run, one.event.program)
    if not patterns:
        wanted = None if program is None else _file_name(program)
        return [run for run, name in seen.items() if wanted is None or _file_name(name) == wanted]
    found: list[str] = []
    for pattern in patterns:
        matching = [run for run in seen if run == pattern or fnmatch.fnmatchcase(run, pattern)]
        if not matching:
            raise ImproveError(f"the log holds no loop run {pattern!r}: `morphogen loop list` shows them")
        found += [run for run in matching if run not in found]
    return found


def read_runs(bus: "Bus", runs: Iterable[str]) -> list[RecordedRun]:
    """Read several runs."""
    return [read_run(bus, run) for run in runs]


def _step(begun: StepStarted, ended: StepFinished) -> RecordedStep:
    return RecordedStep(
        path=begun.path,
        step=begun.step,
        number=begun.number,
        action=begun.action,
        arguments_sha256=begun.arguments_sha256,
        effect=begun.effect,
        ok=ended.ok,
        output=ended.output,
        planned=ended.planned,
        error=ended.error,
        duration_ns=ended.duration_ns,
    )


def _carried(event: Any, sweeps: dict[str, RecordedSweep], queried: list[LlmQueried]) -> None:
    match event:
        case LlmQueried():
            queried.append(event)
        case SweepStarted():
            sweeps.setdefault(event.sweep, RecordedSweep(started=event))
        case TrialFinished() if event.sweep in sweeps:
            sweeps[event.sweep].trials.append(event)
        case SweepFinished() if event.sweep in sweeps:
            sweeps[event.sweep].finished = event
        case _:
            pass


def _file_name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]
