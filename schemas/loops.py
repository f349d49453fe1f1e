"""What a loop does, step by step: everything that is needed to go on with it anywhere.

A run of a loop has one lane of its own in family `loop`, written by one process at a time; its state is a fold over that
lane. Events of other families that a step produces (trace items, metrics, sweeps) are *carried* in `loop.recorded`:
together with the end of the step they are one message, all of it in the log or none. Copies of them then appear in
their own families, where everyone looks for them, numbered by the lane and so exactly once.
"""

from typing import Any

import msgspec

from .event import Event


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """An event of another family on its way into the log; `time` is unix nanoseconds."""

    type: str
    version: int
    time: int
    body: Any
    step: int | None = None


class LoopStarted(Event, type="loop.started", version=1):
    """A run of a loop begins. The program travels along: text, and those of the modules that it uses, by name.

    A program too large for one event is a blob (`text_blob`, a map of text and used).
    """

    loop: str
    kind: str  # task | agent | service | engineering
    program: str
    sha256: str
    text: str | None = None
    used: dict[str, str] = msgspec.field(default_factory=dict)
    text_blob: str | None = None
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    workspace: str = ""
    live: bool = False
    backend: str | None = None
    backend_options: dict[str, Any] = msgspec.field(default_factory=dict)
    host: str | None = None
    pid: int | None = None
    git_commit: str | None = None
    git_dirty: bool | None = None


class LoopResumed(Event, type="loop.resumed", version=1):
    """Another process goes on with the run; whoever led it before is fenced from here on."""

    attempt: int
    sha256: str
    text: str | None = None  # where the program was changed and the change accepted
    used: dict[str, str] = msgspec.field(default_factory=dict)
    text_blob: str | None = None
    accepted_change: bool = False
    workspace: str = ""
    live: bool = False
    backend: str | None = None
    backend_options: dict[str, Any] = msgspec.field(default_factory=dict)
    host: str | None = None
    pid: int | None = None


class StepStarted(Event, type="loop.step_started", version=1):
    """A step begins. In the log before the step has any effect.

    `path` names the step for good, `step` is its name in the program, `number` counts the steps of the run from 1,
    `attempt` the times that this one was begun. `key` is the idempotency key. `plan` is what the tool found out and decided
    before it acts, so that a resume can tell whether it did. Blocks have no action.
    """

    path: str
    step: str
    number: int
    action: str = ""
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    arguments_sha256: str = ""
    key: str = ""
    effect: str = "pure"  # pure | read | write | external
    policy: str = "retry"  # what a resume does where the end is missing: retry | check | ask
    attempt: int = 1
    plan: Any = None


class StepFinished(Event, type="loop.step_finished", version=1):
    """A step ended. `output` is its result, or `{"$blob": sha256, "size": bytes}` where that is large.

    `planned` marks the plan of a step that was not carried out (no `--live`); it is never a result. `resolved` says how
    an interrupted step came to its end: by its check, by an answer, or not at all.
    """

    path: str
    ok: bool
    output: Any = None
    variable: str | None = None
    planned: bool = False
    error: str | None = None
    duration_ns: int = 0
    resources: dict[str, Any] = msgspec.field(default_factory=dict)
    resolved: str | None = None


class LoopAssigned(Event, type="loop.assigned", version=1):
    """A variable got a value."""

    path: str
    name: str
    value: Any = None


class LoopDecided(Event, type="loop.decided", version=1):
    """A branch was taken (`kind` if: `value` is true, false or null for unknown), a list fixed (for), or a value returned."""

    path: str
    kind: str
    value: Any = None
    reason: str = ""


class LoopRecorded(Event, type="loop.recorded", version=1):
    """A step produced events of other families; each appears there as well, under the writer of this run.

    `kind` is "emit" for the trace items that belong to the step's end; others were recorded on the way.
    """

    path: str
    events: list[Carried] = msgspec.field(default_factory=list)
    kind: str = ""


class LoopGrounded(Event, type="loop.grounded", version=1):
    """A fact of the program became true, or false (null: unknown), on a trace item of this run."""

    path: str
    fact: str
    case: str
    value: bool | None = None
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)


class LoopRuleFired(Event, type="loop.rule_fired", version=1):
    """A rule's conditions hold on a trace item of this run."""

    path: str
    rule: str
    apply: list[str] = msgspec.field(default_factory=list)
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)


class LoopViolated(Event, type="loop.violated", version=1):
    """An invariant of the program is false: the loop stops."""

    path: str
    invariant: str
    condition: str
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)


class LoopSuspended(Event, type="loop.suspended", version=1):
    """The loop waits for an answer: of a model's stand-in (`kind` query), or on a step that was interrupted (`kind` effect)."""

    path: str
    kind: str
    prompt: str
    sha256: str
    reason: str = ""
    system: str | None = None
    answer_schema: Any = None


class LoopAnswered(Event, type="loop.answered", version=1):
    """Somebody answers. Counts for the prompt whose hash it names, while the loop waits for that one; else it is ignored."""

    path: str
    sha256: str
    text: str | None = None
    text_blob: str | None = None
    by: str | None = None


class LoopHandled(Event, type="loop.handled", version=1):
    """A service dealt with the event at a place of the log: none before it will be handled again."""

    seq: int
    idx: int
    event_id: str
    handler: str
    path: str
    ok: bool = True
    error: str | None = None
    duration_ns: int = 0


class LoopCheckpoint(Event, type="loop.checkpoint", version=1):
    """The state of a service as of a message of its lane, so that who goes on with it need not read what came before.

    `counter` is that of the lane's last event there, `state` and `source` (the event with the program's text) are msgpack.
    """

    seq: int
    counter: int
    state: bytes
    source_type: str
    source: bytes


class LoopVerdict(Event, type="loop.verdict", version=1):
    """What the success conditions and the evaluation say. `success` is null where nothing was really done."""

    success: bool | None = None
    conditions: list[dict[str, Any]] = msgspec.field(default_factory=list)
    checks: dict[str, Any] = msgspec.field(default_factory=dict)
    metrics: dict[str, float] = msgspec.field(default_factory=dict)


class LoopFinished(Event, type="loop.finished", version=1):
    """The loop came to its end: done or failed, and why."""

    status: str
    reason: str = ""
    duration_ns: int = 0
    steps: int = 0


class Signal(Event, type="signal.emitted", version=1):
    """Something happened that a service may wait for: `emit NAME { ... }` where NAME is no case of the trace."""

    name: str
    values: dict[str, Any] = msgspec.field(default_factory=dict)
