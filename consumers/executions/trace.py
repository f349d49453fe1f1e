"""One execution as it stands in the log: what was asked for, each step with what it gave, and how it was judged."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from morphogen.schemas.executions import ExecutionStep


class At(NamedTuple):
    """Where an event stands in the log, when its producer wrote it and when the broker stored it (unix ns).

    `stored_ns` is of one clock for all events, whatever host they came from.
    """

    seq: int
    idx: int
    time_ns: int = 0
    run: str = ""
    stored_ns: int = 0


_NOWHERE = At(0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A step that was taken. `result` is None also where it lies in `result_blob` and was not fetched (`whole` tells)."""

    number: int
    kind: str
    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    args_sha256: str = ""
    result: Any = None
    result_sha256: str | None = None
    result_blob: str | None = None
    effect: str = "external"
    ok: bool = True
    error: str | None = None
    duration_ns: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_microusd: int | None = None
    model: str | None = None
    priced_by: str | None = None
    whole: bool = True

    @classmethod
    def of(cls, event: ExecutionStep) -> "Step":
        """Return the step that an event tells of."""
        return cls(
            number=event.number, kind=event.kind, name=event.name, args=event.args, args_sha256=event.args_sha256,
            result=event.result, result_sha256=event.result_sha256, result_blob=event.result_blob, effect=event.effect,
            ok=event.ok, error=event.error, duration_ns=event.duration_ns, tokens_in=event.tokens_in,
            tokens_out=event.tokens_out, cost_microusd=event.cost_microusd, model=event.model,
            priced_by=event.priced_by, whole=event.result_blob is None,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """An execution. `outcome` is the newest judgement, None while it is not finished (or never was).

    `at` is where it began; `judged_by` and `note` are of the newest judgement; `kept` is False where only the counts of it
    are held and not its steps, parameters and output.
    """

    execution: str
    goal: str
    template: str
    signature: str
    norm_version: int = 1
    params: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_sha256: str = ""
    mode: str = "learner"
    parent: str | None = None
    request: str | None = None
    budget_microusd: int | None = None
    steps: tuple[Step, ...] = ()
    outcome: str | None = None
    judged_by: str = "nobody"
    note: str = ""
    score: float | None = None
    output: Any = None
    output_sha256: str | None = None
    output_blob: str | None = None
    output_whole: bool = True
    error: str | None = None
    duration_ns: int | None = None
    cost_microusd: int | None = None
    at: At = _NOWHERE
    kept: bool = True

    @property
    def ok(self) -> bool:
        """Whether it is held to have succeeded."""
        return self.outcome == "success"

    @property
    def tools(self) -> tuple[Step, ...]:
        """The steps that used a tool."""
        return tuple(step for step in self.steps if step.kind == "tool")

    @property
    def whole(self) -> bool:
        """Whether every value of it is here, and every step from the first on."""
        numbered = all(step.number == at for at, step in enumerate(self.steps))
        return self.kept and self.output_whole and numbered and all(step.whole for step in self.steps)

    @property
    def blobs(self) -> frozenset[str]:
        """The blobs of values that are not here."""
        lying = {step.result_blob for step in self.steps if not step.whole}
        if not self.output_whole:
            lying.add(self.output_blob)
        return frozenset(blob for blob in lying if blob is not None)

    def with_values(self, values: Mapping[str, Any]) -> "Trace":
        """Return the trace with what `values` has of its blobs."""
        if not self.blobs & values.keys():
            return self
        steps = tuple(
            replace(step, result=values[step.result_blob], whole=True)
            if step.result_blob is not None and not step.whole and step.result_blob in values
            else step
            for step in self.steps
        )
        if self.output_blob is None or self.output_whole or self.output_blob not in values:
            return replace(self, steps=steps)
        return replace(self, steps=steps, output=values[self.output_blob], output_whole=True)
