"""How something was done: a goal, the steps that reached it or did not, and who says so.

An *execution* is one attempt at a goal. Its events are enough to do it again: arguments and results travel along (large ones
as blobs), each with its hash. Durations are nanoseconds; costs are millionths of a dollar (micro-dollars). Cost and tokens
are None where nobody knows them, never 0 in their place.
"""

from typing import Any

import msgspec

from .event import Event
from .values import Vector

KINDS = ("tool", "llm")  # what a step is: a use of a declared tool, or a question to a model
EFFECTS = ("pure", "read", "write", "external")  # what a step did to the world
OUTCOMES = ("success", "failure", "cancelled", "timeout")
JUDGES = ("assertion", "judge", "user", "exception", "nobody")
MODES = ("crystallized", "follower", "mixed", "learner", "orchestrator")  # from the cheapest to the dearest


class ExecutionStarted(Event, type="execution.started", version=1):
    """An attempt at a goal begins. `environment` is what its course may depend on, by name; `parent` another execution."""

    execution: str
    goal: str
    template: str
    signature: str
    norm_version: int
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    environment_sha256: str = ""
    mode: str = "learner"  # of MODES
    parent: str | None = None
    request: str | None = None  # of the dispatch that it serves
    budget_microusd: int | None = None


class ExecutionStep(Event, type="execution.step", version=1):
    """A step was taken. `number` counts from 0; `result` is the value, or None with `result_blob` where it is large.

    Hashes are `sha256:` of the value's MessagePack with its keys in order, as those of the sandbox.
    """

    execution: str
    number: int
    kind: str  # of KINDS
    name: str
    args: dict[str, Any] = msgspec.field(default_factory=dict)
    args_sha256: str = ""
    result: Any = None
    result_sha256: str | None = None  # None where it failed
    result_blob: str | None = None
    effect: str = "external"  # pure | read | write | external
    ok: bool = True
    error: str | None = None
    duration_ns: int = 0
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_microusd: int | None = None
    model: str | None = None
    priced_by: str | None = None  # where the cost comes from: told | prices | script; None where it is not known


class ExecutionFinished(Event, type="execution.finished", version=1):
    """The attempt ended. `output` is the answer to the goal, or None with `output_blob` where it is large."""

    execution: str
    outcome: str  # of OUTCOMES
    judged_by: str = "nobody"  # of JUDGES
    score: float | None = None
    output: Any = None
    output_sha256: str | None = None
    output_blob: str | None = None
    steps: int = 0
    duration_ns: int = 0
    cost_microusd: int | None = None
    error: str | None = None


class ExecutionFeedback(Event, type="execution.feedback", version=1):
    """Somebody judges an execution later; the newest judgement counts."""

    execution: str
    outcome: str  # success | failure
    judged_by: str = "user"
    note: str = ""


class GoalEmbedded(Event, type="goal.embedded", version=1):
    """A family's template as a vector (float32, length 1), by the model of that name and content hash."""

    signature: str
    template: str
    model: str
    vector: Vector
