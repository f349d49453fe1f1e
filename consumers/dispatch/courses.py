"""A recorded execution as a course that can be gone again: its tool steps without detours, its replies, its answer. Pure."""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from morphogen.consumers.executions import Step, Trace

from .explain import CannotFollow, Known, stamp

CALM = frozenset({"pure", "read"})


@dataclass(frozen=True)
class Course:
    """What a trace did. `asked` are its questions to models by number: their arguments, their replies, and how many tool
    steps went before them.
    """

    execution: str
    params: Mapping[str, Any]
    steps: tuple[Step, ...]
    output: Any
    environment: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[int, tuple[Mapping[str, Any], Any, int]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[str, ...]:
        """The names of its tool steps, in order."""
        return tuple(step.name for step in self.steps)

    @property
    def changes(self) -> bool:
        """Whether it changes the world."""
        return any(step.effect not in CALM for step in self.steps)

    @property
    def looks(self) -> bool:
        """Whether it asked anything of the world, or of a function."""
        return any(step.effect != "write" for step in self.steps)

    def without(self, detours: Set[tuple[str, bytes]]) -> "Course":
        """Return the course without the looks of these names and arguments (by their stamp)."""
        kept, places = [], [0]
        for step in self.steps:
            if step.effect not in CALM or (step.name, stamp(dict(step.args))) not in detours:
                kept.append(step)
            places.append(len(kept))
        asked = {number: (args, reply, places[after]) for number, (args, reply, after) in self.asked.items()}
        return replace(self, steps=tuple(kept), asked=asked)

    def known(self, upto: int) -> Known:
        """Return what was known after its first `upto` tool steps."""
        replies = {number: reply for number, (_, reply, after) in self.asked.items() if after <= upto}
        return Known(self.params, tuple(step.result for step in self.steps[:upto]), replies)


def course_of(trace: Trace) -> Course:
    """Return a trace as a course. Raises CannotFollow where it did not succeed, is not whole, or failed at changing the world.

    Left out are reads that failed, and those that were made before with the same arguments while nothing had changed.
    """
    if not trace.ok:
        raise CannotFollow(f"execution {trace.execution} did not succeed")
    if not trace.whole:
        raise CannotFollow(f"values of execution {trace.execution} are not at hand")
    steps: list[Step] = []
    asked: dict[int, tuple[Mapping[str, Any], Any, int]] = {}
    seen: set[tuple[str, bytes]] = set()
    for step in trace.steps:
        if step.kind == "llm":
            if step.ok:
                asked[len(asked)] = (step.args, step.result, len(steps))
            continue
        calm = step.effect in CALM
        if not step.ok:
            if not calm:
                raise CannotFollow(f"step {step.number} ({step.name}) of execution {trace.execution} failed")
            continue
        key = (step.name, stamp(dict(step.args)))
        if calm and key in seen:
            continue
        seen = seen | {key} if calm else set()
        steps.append(step)
    return Course(trace.execution, dict(trace.params), tuple(steps), trace.output, dict(trace.environment), asked)


def courses_of(traces: Iterable[Trace], most: int) -> tuple[Course, ...]:
    """Return the newest courses that can be gone, at most `most`, newest first."""
    found: list[Course] = []
    for trace in sorted(traces, key=lambda one: one.at, reverse=True):
        if len(found) == most:
            break
        try:
            found.append(course_of(trace))
        except CannotFollow:
            continue
    return tuple(found)


def tidied(courses: Sequence[Course]) -> list[Course]:
    """Return the courses without detours: a look that some courses took alike, whatever the parameters, and others did not need.

    What a course did need is missed where its values are explained, and then it is not followed.
    """
    takers: dict[tuple[str, bytes], list[Course]] = {}
    for course in courses:
        for key in {(step.name, stamp(dict(step.args))) for step in course.steps if step.effect in CALM}:
            takers.setdefault(key, []).append(course)
    detours = {
        key
        for key, some in takers.items()
        if len(some) < len(courses)
        and len({stamp(dict(one.params)) for one in some}) > 1
        and not any(_mentions(key[1], value) for one in some for value in one.params.values())
    }
    return [course.without(detours) if detours else course for course in courses]


def _mentions(args: bytes, value: Any) -> bool:
    """Tell whether stamped arguments hold a parameter's value, or a part of it, anywhere."""
    if isinstance(value, Mapping):
        return any(_mentions(args, item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_mentions(args, item) for item in value)
    if value is None or isinstance(value, bool):
        return False
    return str(value).encode("utf-8", "replace") in args or stamp(value) in args
