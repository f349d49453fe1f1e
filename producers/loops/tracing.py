"""A run of a loop as an execution: its own events, told once more as the steps of a way to a goal. Pure but for large values.

A run that pursues a goal for somebody carries an `execution.started` in its lane from its first message on. From then on the end
of each step brings an `execution.step` in the same message, before it, so both are in the log or none is, whatever is
killed when; and the end of the run brings `execution.finished`. Another process that resumes the run goes on with them.

Not told: blocks, plans, what the evaluation did to find out whether it was a success (what a model cost there is), and giving up.
"""

from typing import TYPE_CHECKING, Any

from morphogen.kernels.sandbox.values import canonical, value_sha256
from morphogen.schemas import (
    Carried,
    Event,
    ExecutionFinished,
    ExecutionStep,
    LoopFinished,
    LoopRecorded,
    StepFinished,
    StepStarted,
    Unknown,
)
from morphogen.schemas.executions import JUDGES

from . import stored
from .state import DONE, State

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

TRACED = "$execution"  # the path under which they are carried; no step is called so
INLINE = 16 * 1024  # bytes of a value from which on it becomes a blob
QUERY, ACT, DISPATCH = "llm.query", "tool.act", "tool.dispatch"
_UNTOLD = frozenset({"", QUERY, "tool.give_up"})
CHECKS = "evaluation."
_PRICED_BY = {"script": "script", "openai": "prices"}  # others tell it themselves
ANSWER, JUDGED_BY = "answer", "judged_by"  # variables of a loop that mean something here


def steps_of(state: State, event: Event | Unknown, bus: "Bus | None") -> list[Event]:
    """Return what an event of the run's lane, that is about to be added to this state, tells of the execution."""
    traced = state.traced
    if traced is None:
        return []
    match event:
        case StepFinished():
            begun = state.pending.get(event.path)
            untold = begun is None or begun.action in _UNTOLD or event.planned or event.path.startswith(CHECKS)
            return [] if untold or begun is None else [_acted(state, begun, event, bus)]
        case LoopRecorded():
            asked = [one for one in event.events if one.type == "llm.queried" and isinstance(one.body, dict)]
            return [_asked(traced.execution, traced.steps + at, one, bus) for at, one in enumerate(asked)]
        case LoopFinished():
            return [_finished(state, event, bus)]
    return []


def _acted(state: State, begun: StepStarted, ended: StepFinished, bus: "Bus | None") -> ExecutionStep:
    from .goals.hands import as_function

    assert state.traced is not None
    output = stored.get(ended.output, bus)
    name, args, ok, error, effect = begun.action, dict(begun.arguments), ended.ok, ended.error, begun.effect
    cost: int | None = None
    if name in {ACT, DISPATCH} and isinstance(output, dict) and "shown" in output:
        cost = output.get("cost_microusd") if name == DISPATCH else None
        if name == ACT:
            name, args = str(args.get("name")), dict(args.get("arguments") or {})
        ok, error, output = bool(output["ok"]), output["error"], output["result"]
    else:
        name, args = as_function(name, {key: value for key, value in args.items() if value is not None})
    inline, sha256, blob = _held(output, bus) if ok else (None, None, None)
    return ExecutionStep(
        execution=state.traced.execution, number=state.traced.steps, kind="tool", name=name, args=args,
        args_sha256=value_sha256(args), result=inline, result_sha256=sha256, result_blob=blob, effect=effect, ok=ok,
        error=None if ok else error or "it failed", duration_ns=ended.duration_ns,
        cost_microusd=cost, priced_by=None if cost is None else "told",
    )  # fmt: skip


def _asked(execution: str, number: int, carried: Carried, bus: "Bus | None") -> ExecutionStep:
    body: dict[str, Any] = carried.body
    reply, backend = body.get("reply"), body.get("backend", "")
    args: dict[str, Any] = {"backend": backend} | {
        name: body[field]
        for name, field in (("prompt", "prompt"), ("system", "system"), ("schema", "answer_schema"))
        if body.get(field) is not None
    }
    inline, sha256, blob = _held(reply, bus) if reply is not None else (None, None, None)
    cost = 0 if backend == "answer" else body.get("cost_usd_micros")
    source = None if cost is None else _PRICED_BY.get(backend, "told")
    return ExecutionStep(
        execution=execution, number=number, kind="llm", name=QUERY, args=args, args_sha256=value_sha256(args),
        result=inline, result_sha256=sha256, result_blob=blob, effect="read",
        ok=reply is not None, error=None if reply is not None else body.get("error"),
        duration_ns=body.get("latency_ns", 0), tokens_in=body.get("tokens_in"), tokens_out=body.get("tokens_out"),
        cost_microusd=cost, model=body.get("model") or backend, priced_by=source,
    )  # fmt: skip


def _finished(state: State, event: LoopFinished, bus: "Bus | None") -> ExecutionFinished:
    traced = state.traced
    assert traced is not None
    ok = event.status == DONE
    output = answer_of(state, bus) if ok else None
    inline, sha256, blob = _held(output, bus) if ok else (None, None, None)
    return ExecutionFinished(
        execution=traced.execution, outcome="success" if ok else "failure", judged_by=judged_by(state), output=inline,
        output_sha256=sha256, output_blob=blob, steps=traced.steps, duration_ns=event.duration_ns,
        cost_microusd=cost_of(state), error=None if ok else event.reason,
    )  # fmt: skip


def answer_of(state: State, bus: "Bus | None") -> Any:
    """Return what the loop returned, else its variable `answer`, else None."""
    traced = state.traced
    if traced is not None and traced.answered:
        return stored.get(traced.output, bus)
    return stored.get(state.variables.get(ANSWER), bus)


def cost_of(state: State) -> int | None:
    """Return what models cost in micro-dollars; None where the cost of one call is not known."""
    return None if state.traced is None or state.traced.unpriced else state.traced.cost_microusd


def judged_by(state: State) -> str:
    """Return who says how it ended: the loop's own variable, its conditions and checks, a model's, an error, or nobody."""
    named = state.variables.get(JUDGED_BY)
    if named in JUDGES and named != "nobody":
        return str(named)
    verdict = state.verdict
    if verdict is not None and (verdict.checks or any("condition" in one for one in verdict.conditions)):
        return "judge" if state.traced is not None and state.traced.judge else "assertion"
    return "nobody" if verdict is not None and verdict.success else "exception"


def _held(value: Any, bus: "Bus | None") -> tuple[Any, str, str | None]:
    """Return a value as an event holds it: inline or not, its hash, the blob where it is large."""
    data = canonical(value)
    if len(data) <= INLINE or bus is None:
        return value, value_sha256(value), None
    return None, value_sha256(value), bus.blobs.put(data)
