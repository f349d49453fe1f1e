"""What stands in for the world while a recorded run is re-enacted: tools, models, files and blobs that only remember."""

import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from morphogen.schemas.knowledge.tools import Signature

from .. import stored
from ..actions import QUERY
from ..errors import LoopError, ToolFailed
from ..items import case_of
from ..llm import Query, Reply
from ..tools import ToolCall, ToolResult
from .history import RecordedRun, RecordedStep

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

ACTS = frozenset({"write", "external"})  # effects that change the world
_EMITS_ITSELF = "tool.engineering_loop"


class NotRecorded(LoopError):
    """The program does what no recorded run did."""


@dataclass(slots=True)
class Enacted:
    """How a program went over recorded outputs. `acts` are the actions that change the world, in order."""

    status: str = ""
    success: bool | None = None
    steps: int = 0
    seconds: float = 0.0
    tokens: int = 0
    cost_usd_micros: int = 0
    borrowed: int = 0
    acts: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class RunRecords:
    """What one run recorded, ready to be given out again: each action by its name and arguments, in order."""

    steps: dict[tuple[str, str], deque[RecordedStep]]
    others: Mapping[tuple[str, str], RecordedStep]
    run: RecordedRun
    output: Callable[[Any], Any]
    replies: dict[str, list[Any]]
    journal: Any = None

    def take(self, action: str, arguments_sha256: str, done: Enacted) -> RecordedStep:
        """Return the recorded step that did the same, and count it. Raises NotRecorded."""
        key = (action, arguments_sha256)
        queue = self.steps.get(key)
        step = queue.popleft() if queue else None
        if step is None:
            step = self.others.get(key)
            if step is None or step.effect in ACTS:
                raise NotRecorded(f"no run did what {action} would do now")
            done.borrowed += 1
        done.seconds += step.seconds
        if step.effect in ACTS:
            done.acts.append(key)
        return step


class Records:
    """What all runs recorded."""

    def __init__(self, runs: Sequence[RecordedRun], signatures: Mapping[str, Signature], bus: "Bus | None") -> None:
        self.signatures = signatures
        self._output = lambda value: stored.get(value, bus)
        self._looked: dict[tuple[str, str], RecordedStep] = {}
        for run in runs:
            for step in run.actions:
                if not step.planned and step.ok:
                    self._looked.setdefault((step.action, step.arguments_sha256), step)

    def of(self, run: RecordedRun) -> RunRecords:
        """Return a fresh set of one run's records."""
        steps: dict[tuple[str, str], deque[RecordedStep]] = {}
        for step in run.actions:
            if not step.planned and step.action != QUERY:
                steps.setdefault((step.action, step.arguments_sha256), deque()).append(step)
        replies: dict[str, list[Any]] = {}
        for query in run.queried:
            if query.reply is not None:
                replies.setdefault(query.prompt_sha256, []).append(query)
        return RunRecords(steps, self._looked, run, self._output, replies)


class RecordedTool:
    """Gives what was recorded, in place of a tool."""

    def __init__(self, signature: Signature, records: RunRecords, done: Enacted) -> None:
        self.signature = signature
        self._records = records
        self._done = done

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return the effect that the tool declares."""
        return self.signature.effect

    def plan(self, call: ToolCall) -> Any:
        """Return nothing: nothing will be done."""
        return

    def run(self, call: ToolCall) -> ToolResult:
        """Return the recorded result, or fail as it failed."""
        begun = self._records.journal.state.pending[call.context.place.path]
        step = self._records.take(begun.action, begun.arguments_sha256, self._done)
        output = self._records.output(step.output)
        result = ToolResult(output=output, text=output if isinstance(output, str) else "", duration_ns=step.duration_ns)
        if not step.ok:
            raise ToolFailed(step.error or "it failed", result)
        if begun.action == _EMITS_ITSELF:
            for type_name, body in self._records.run.traced.get(step.path, ()):
                case = case_of(call.context.program, type_name)
                if case is not None:
                    fields = {name: value for name, value in body.items() if name not in {"origin", "source"}}
                    call.context.emit(case, fields, origin=str(body.get("origin", "measured")))
        return result


class RecordedModel:
    """Gives the recorded replies, in place of a model."""

    name = "recorded"

    def __init__(self, records: RunRecords, done: Enacted) -> None:
        self._records = records
        self._done = done

    def ask(self, query: Query) -> Reply:
        """Return the reply that the same prompt had. Raises NotRecorded."""
        kept = self._records.replies.get(query.sha256, [])
        if query.occurrence >= len(kept):
            raise NotRecorded(f"no model was asked what step {query.step} would ask now")
        event = kept[query.occurrence]
        self._done.seconds += event.latency_ns / 1e9
        self._done.tokens += (event.tokens_in or 0) + (event.tokens_out or 0)
        self._done.cost_usd_micros += event.cost_usd_micros or 0
        return Reply(
            event.reply, event.tokens_in, event.tokens_out, event.cost_usd_micros, event.model, event.latency_ns
        )


class NoWorkspace:
    """Stands where files would be: nobody may look, for what they held then is not known."""

    def exists(self, path: str) -> bool:
        """Raise NotRecorded."""
        raise NotRecorded(f"what {path} was is not recorded")

    def read(self, path: str) -> bytes:
        """Raise NotRecorded."""
        raise NotRecorded(f"what {path} held is not recorded")


class MemoryBlobs:
    """Large values of a run in memory; those of the recorded run come from the bus."""

    def __init__(self, bus: "Bus | None") -> None:
        self._bus = bus
        self._held: dict[str, bytes] = {}
        self.blobs = self

    def put(self, data: bytes) -> str:
        """Keep bytes."""
        sha256 = hashlib.sha256(data).hexdigest()
        self._held[sha256] = data
        return sha256

    def get(self, sha256: str) -> bytes:
        """Return bytes."""
        if sha256 in self._held or self._bus is None:
            return self._held[sha256]
        return self._bus.blobs.get(sha256)
