"""The fold from events to traces, and from traces to families: all that was ever done for goals of one template.

Pure: no clock, no chance, nothing read. What it holds depends on the events and their order in the log alone.

- A trial is an execution that ended in success, failure or timeout; one that was cancelled proves nothing.
- The newest `execution.feedback` counts before what the execution said of itself, wherever the two stand in the log.
- Of each family the newest 200 of each kind are kept whole, of older ones only the counts: successes and other trials, each
  apart for those that a model led and those that only repeated (a tool's calls do not drive out what it was made from).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from morphogen.schemas.event import Event, Unknown
from morphogen.schemas.executions import (
    ExecutionFeedback,
    ExecutionFinished,
    ExecutionStarted,
    ExecutionStep,
    GoalEmbedded,
)

from .family import Family, family_of
from .trace import At, Step, Trace

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

KEPT = 200  # executions of a kind that are kept whole of a family
_REPEATING = frozenset({"crystallized", "follower"})
OPEN_KEPT = 1000  # executions that have begun and not ended, of which the steps are kept


@dataclass(slots=True)
class _Record:
    """What is known of one execution."""

    execution: str
    at: At | None = None
    started: ExecutionStarted | None = None
    steps: dict[int, Step] = field(default_factory=dict)
    finished: ExecutionFinished | None = None
    feedback: ExecutionFeedback | None = None
    kept: bool = True
    trace: Trace | None = None

    @property
    def outcome(self) -> str | None:
        if self.finished is None:
            return None
        return self.finished.outcome if self.feedback is None else self.feedback.outcome

    @property
    def kind(self) -> tuple[bool, bool]:
        """Whether it succeeded, and whether it repeated what was known without a model's lead."""
        return self.outcome == "success", self.started is not None and self.started.mode in _REPEATING

    def drop(self) -> None:
        """Keep the counts alone."""
        self.kept, self.trace, self.steps = False, None, {}


class Families:
    """A fold of events into families. `seen` takes each event in the order of the log; all else asks."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self.position = 0
        """The sequence of the newest event that was taken."""
        self.gone: set[str] = set()
        """Blobs that were asked for and cannot be had; for whoever fetches."""
        self._kept = kept
        self._records: dict[str, _Record] = {}
        self._members: dict[str, dict[str, _Record]] = {}
        self._open: dict[str, _Record] = {}
        self._whole: dict[str, dict[str, _Record]] = {}  # ended and kept, by family, in the order in which they ended
        self._families: dict[str, Family] = {}
        self._values: dict[str, Any] = {}
        self._vectors: dict[tuple[str, str], npt.NDArray[np.float32]] = {}
        self._templates: dict[str, str] = {}

    def seen(self, event: Event | Unknown, at: At) -> None:
        """Take one event; others than those of executions and goals are passed over."""
        self.position = max(self.position, at.seq)
        match event:
            case ExecutionStarted():
                self._started(event, at)
            case ExecutionStep():
                self._step(event)
            case ExecutionFinished():
                record = self._record(event.execution)
                record.finished = event
                self._open.pop(event.execution, None)
                self._changed(record)
            case ExecutionFeedback():
                record = self._record(event.execution)
                record.feedback = event
                self._changed(record)
            case GoalEmbedded():
                self._vectors[event.signature, event.model] = event.vector
                self._templates.setdefault(event.signature, event.template)

    def family(self, signature: str) -> Family | None:
        """Return all of one signature, None where nothing was ever begun for it."""
        members = self._members.get(signature)
        if not members:
            return None
        known = self._families.get(signature)
        if known is None:
            known = self._families[signature] = family_of(signature, [self._trace(one) for one in members.values()])
        return known

    def trace(self, execution: str) -> Trace | None:
        """Return an execution by its id, None where it is not known to have begun."""
        record = self._records.get(execution)
        return None if record is None or record.started is None else self._trace(record)

    def outcome(self, execution: str) -> str | None:
        """Return how an execution is judged at present, None where it has not ended."""
        record = self._records.get(execution)
        return None if record is None else record.outcome

    def vectors(self, model: str) -> "Mapping[str, npt.NDArray[np.float32]]":
        """Return the embedded templates by signature, as one model has them."""
        return {signature: vector for (signature, of), vector in self._vectors.items() if of == model}

    def template(self, signature: str) -> str | None:
        """Return a family's template, from its executions or from its embedding."""
        members = self._members.get(signature)
        if members:
            started = next(iter(members.values())).started
            assert started is not None
            return started.template
        return self._templates.get(signature)

    @property
    def blobs(self) -> frozenset[str]:
        """The blobs of values that kept traces lack; `supply` takes what they hold."""
        lying = [self._trace(one).blobs for each in self._whole.values() for one in each.values()]
        return frozenset().union(*lying)

    def supply(self, values: Mapping[str, Any]) -> None:
        """Take values that lie in blobs, by their blob; those that no kept trace needs any more are let go."""
        self._values |= values
        needed: set[str] = set()
        for members in self._whole.values():
            for record in members.values():
                record.trace = None
                needed |= {step.result_blob for step in record.steps.values() if step.result_blob is not None}
                if record.finished is not None and record.finished.output_blob is not None:
                    needed.add(record.finished.output_blob)
        self._values = {blob: value for blob, value in self._values.items() if blob in needed}
        self._families.clear()

    def __iter__(self) -> Iterator[Family]:
        """Yield every family, in the order in which they were first begun."""
        for signature in list(self._members):
            family = self.family(signature)
            assert family is not None
            yield family

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, signature: object) -> bool:
        return signature in self._members

    def _record(self, execution: str) -> _Record:
        return self._records.setdefault(execution, _Record(execution))

    def _started(self, event: ExecutionStarted, at: At) -> None:
        record = self._record(event.execution)
        if record.started is not None:
            return  # an id is used once; whoever uses it again tells of nothing new
        record.started, record.at = event, at
        self._members.setdefault(event.signature, {})[event.execution] = record
        if record.finished is None:
            self._open[event.execution] = record
            if len(self._open) > OPEN_KEPT:
                self._open.pop(next(iter(self._open))).drop()
        self._changed(record)

    def _step(self, event: ExecutionStep) -> None:
        record = self._record(event.execution)
        if record.kept:
            record.steps[event.number] = Step.of(event)
            self._changed(record)

    def _changed(self, record: _Record) -> None:
        record.trace = None
        if record.started is None:
            return
        self._families.pop(record.started.signature, None)
        if record.finished is not None and record.kept:
            self._let_go(record)

    def _let_go(self, newest: _Record) -> None:
        """Drop the oldest of the same kind where more than enough are kept."""
        assert newest.started is not None
        whole = self._whole.setdefault(newest.started.signature, {})
        whole[newest.execution] = newest
        alike = [one for one in whole.values() if one.kind == newest.kind]
        for record in alike[: max(0, len(alike) - self._kept)]:
            del whole[record.execution]
            record.drop()

    def _trace(self, record: _Record) -> Trace:
        if record.trace is None:
            record.trace = _assembled(record).with_values(self._values)
        return record.trace


def _assembled(record: _Record) -> Trace:
    started, finished, feedback = record.started, record.finished, record.feedback
    assert started is not None
    assert record.at is not None
    judged: dict[str, Any] = {} if finished is None else {
        "outcome": record.outcome,
        "judged_by": finished.judged_by if feedback is None else feedback.judged_by,
        "note": "" if feedback is None else feedback.note,
        "score": finished.score, "output_sha256": finished.output_sha256, "error": finished.error,
        "duration_ns": finished.duration_ns, "cost_microusd": finished.cost_microusd,
    }  # fmt: skip
    if finished is not None and record.kept:
        judged |= {
            "output": finished.output, "output_blob": finished.output_blob, "output_whole": finished.output_blob is None,
        }  # fmt: skip
    return Trace(
        execution=started.execution, goal=started.goal, template=started.template, signature=started.signature,
        norm_version=started.norm_version, params=started.params, environment=started.environment,
        environment_sha256=started.environment_sha256, mode=started.mode, parent=started.parent,
        request=started.request, budget_microusd=started.budget_microusd,
        steps=tuple(step for _, step in sorted(record.steps.items())), at=record.at, kept=record.kept, **judged,
    )  # fmt: skip
