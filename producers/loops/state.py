"""The state of a run: a pure fold over the events of its lane.

The interpreter changes its state by no other way than `advance`, so that a process which reads the log stands exactly where the one
stood that wrote it.
"""

from typing import Any

import msgspec

from morphogen.schemas import (
    Carried,
    Event,
    LoopAnswered,
    LoopAssigned,
    LoopDecided,
    LoopFinished,
    LoopGrounded,
    LoopHandled,
    LoopRecorded,
    LoopResumed,
    LoopRuleFired,
    LoopStarted,
    LoopSuspended,
    LoopVerdict,
    LoopViolated,
    StepFinished,
    StepStarted,
    Unknown,
)

RUNNING, SUSPENDED, DONE, FAILED = "running", "suspended", "done", "failed"
_NO_WAITING = frozenset({DONE, FAILED})


class Item(msgspec.Struct, frozen=True):
    """A trace item of the run: its event type, its fields as they went into the log, the step that gave it, when."""

    type: str
    body: dict[str, Any]
    path: str
    time: int


class Outcome(msgspec.Struct, frozen=True):
    """How a step ended."""

    ok: bool
    output: Any = None
    variable: str | None = None
    planned: bool = False
    error: str | None = None
    duration_ns: int = 0


class Waiting(msgspec.Struct, frozen=True):
    """What a suspended loop waits for."""

    path: str
    kind: str
    prompt: str
    sha256: str
    reason: str = ""
    system: str | None = None
    answer_schema: Any = None


class Traced(msgspec.Struct):
    """The execution that a run is, where it pursues a goal for somebody: what was spent on it, and its answer so far."""

    execution: str
    mode: str = "learner"
    budget_microusd: int | None = None
    steps: int = 0
    cost_microusd: int = 0
    delegated: int = 0  # micro-dollars of it that parts of the goal took, which were pursued elsewhere
    unpriced: int = 0  # steps whose cost nobody knows
    judge: bool = False  # a model was asked by the evaluation
    answered: bool = False  # the loop returned a value
    output: Any = None


class State(msgspec.Struct):
    """Where a run stands. Only `advance` changes it."""

    run: str = ""
    loop: str = ""
    kind: str = ""
    program: str = ""
    sha256: str = ""
    status: str = ""
    reason: str = ""
    workspace: str = ""
    live: bool = False
    backend: str | None = None
    backend_options: dict[str, Any] = msgspec.field(default_factory=dict)
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    attempt: int = 0
    started: int = 0
    steps: int = 0
    variables: dict[str, Any] = msgspec.field(default_factory=dict)
    outcomes: dict[str, Outcome] = msgspec.field(default_factory=dict)
    decisions: dict[str, Any] = msgspec.field(default_factory=dict)
    recorded: dict[str, int] = msgspec.field(default_factory=dict)  # events carried so far, by step
    pending: dict[str, StepStarted] = msgspec.field(default_factory=dict)  # begun, end unknown; the innermost last
    lanes: dict[str, int] = msgspec.field(default_factory=dict)  # events carried so far, by family
    trace: list[Item] = msgspec.field(default_factory=list)
    facts: dict[str, bool | None] = msgspec.field(default_factory=dict)
    rules: dict[str, int] = msgspec.field(default_factory=dict)
    violated: list[str] = msgspec.field(default_factory=list)
    waiting: Waiting | None = None
    answers: dict[str, list[LoopAnswered]] = msgspec.field(default_factory=dict)  # those that counted, by step
    verdict: LoopVerdict | None = None
    place: tuple[int, int] = (0, 0)  # service loops: the last event of the log that was handled
    handled: int = 0
    recent: list[str] = msgspec.field(default_factory=list)  # ids of the newest of them: the log may hold one twice
    finished: int = 0
    traced: Traced | None = None


def advance(state: State, event: Event | Unknown, *, time: int = 0, run: str = "") -> State:
    """Change the state by one event of the run's lane and return it; events of other kinds change nothing."""
    match event:
        case StepStarted():
            state.steps = max(state.steps, event.number)
            state.outcomes.pop(event.path, None)
            state.pending[event.path] = event
        case StepFinished():
            state.pending.pop(event.path, None)
            state.outcomes[event.path] = Outcome(
                event.ok, event.output, event.variable, event.planned, event.error, event.duration_ns
            )
            if event.variable is not None:
                state.variables[event.variable] = None if event.planned else event.output
        case LoopAssigned():
            state.variables[event.name] = event.value
            state.decisions[event.path] = None
        case LoopDecided():
            state.decisions[event.path] = event.value
            if state.traced is not None and event.kind == "return" and ">" not in event.path:
                state.traced.answered, state.traced.output = True, event.value
        case LoopRecorded():
            _record(state, event)
        case LoopGrounded():
            state.facts[event.fact] = event.value
        case LoopRuleFired():
            state.rules[event.rule] = state.rules.get(event.rule, 0) + 1
        case LoopViolated():
            state.violated.append(event.invariant)
        case LoopSuspended():
            state.status = SUSPENDED
            state.reason = event.reason
            state.waiting = Waiting(
                event.path, event.kind, event.prompt, event.sha256, event.reason, event.system, event.answer_schema
            )
        case LoopAnswered():
            if state.waiting is not None and state.waiting.sha256 == event.sha256:
                state.answers.setdefault(state.waiting.path, []).append(event)
                state.waiting = None
        case LoopHandled():
            _forget_handling(state, event)
        case LoopVerdict():
            state.verdict = event
        case LoopFinished():
            state.status, state.reason, state.finished = event.status, event.reason, time
            state.waiting = None
        case LoopStarted():
            state.run, state.started, state.attempt, state.status = run, time, 1, RUNNING
            state.loop, state.kind, state.program, state.sha256 = event.loop, event.kind, event.program, event.sha256
            state.parameters = dict(event.parameters)
            _led(state, event)
        case LoopResumed():
            state.attempt, state.sha256, state.reason = event.attempt, event.sha256, ""
            if state.status not in _NO_WAITING:
                state.status = RUNNING
            _led(state, event)
        case _:
            pass
    return state


def encoded(state: State) -> bytes:
    """Return the state as bytes: equal states give equal bytes."""
    return msgspec.msgpack.encode(state, order="deterministic")


def _led(state: State, event: LoopStarted | LoopResumed) -> None:
    state.workspace, state.live = event.workspace, event.live
    state.backend, state.backend_options = event.backend, dict(event.backend_options)


def _record(state: State, event: LoopRecorded) -> None:
    place = f"{event.path}->" if event.kind else event.path
    state.recorded[place] = state.recorded.get(place, 0) + len(event.events)
    for carried in event.events:
        family = carried.type.partition(".")[0]
        state.lanes[family] = state.lanes.get(family, 0) + 1
        if family == "trace" and isinstance(carried.body, dict):
            state.trace.append(Item(carried.type, carried.body, event.path, carried.time))
        elif carried.type in _OF_AN_EXECUTION and isinstance(carried.body, dict):
            _trace(state, carried, event.path)


def _trace(state: State, carried: Carried, path: str) -> None:
    body = carried.body
    if carried.type == "execution.started":
        state.traced = Traced(body["execution"], body.get("mode", "learner"), body.get("budget_microusd"))
    elif state.traced is None:
        return
    elif carried.type == "llm.queried":
        state.traced.judge |= path.startswith("evaluation.")
    else:
        cost, tool = body.get("cost_microusd"), body.get("kind") == "tool"
        state.traced.steps += 1
        state.traced.cost_microusd += cost or 0
        state.traced.delegated += (cost or 0) if tool else 0
        state.traced.unpriced += cost is None and (not tool or body.get("name") == "tool.dispatch")


def _forget_handling(state: State, event: LoopHandled) -> None:
    """Drop what a handling that is over left behind, for a service lives for ever: place, variables and latest items stay."""
    state.place = (event.seq, event.idx)
    state.handled += 1
    state.recent.append(event.event_id)
    del state.recent[:-_REMEMBERED]
    prefix = f"{event.path}."
    for table in (state.outcomes, state.decisions, state.recorded, state.pending, state.answers):
        for path in [path for path in table if path.startswith(prefix)]:
            del table[path]
    for name in [name for name in state.variables if name.startswith(f"{event.path}\0")]:
        del state.variables[name]
    del state.trace[:-_TRACE_OF_A_SERVICE]


_TRACE_OF_A_SERVICE = 1000
_REMEMBERED = 1000  # a checkpoint holds them
_OF_AN_EXECUTION = frozenset({"execution.started", "execution.step", "llm.queried"})
