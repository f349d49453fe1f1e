"""Begin a run of a loop, or go on with one from the log alone; drive it to its end, or to where it waits."""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from morphogen.schemas import (
    EncodeError,
    Event,
    ExecutionStarted,
    LoopFinished,
    LoopRecorded,
    LoopResumed,
    LoopStarted,
    LoopVerdict,
    Metrics,
    RunFailed,
    RunFinished,
    RunStarted,
)
from morphogen.schemas.knowledge.errors import EvaluateError
from morphogen.schemas.knowledge.program import Program, load
from morphogen.schemas.knowledge.tree import (
    Action,
    AgentLoop,
    EngineeringLoop,
    Literal,
    Property,
    ServiceLoop,
    Step,
    Task,
)

from ..environment import describe, git_state
from .actions import Actions, Suspended
from .asking import Asking
from .context import LoopContext, Place
from .errors import InvariantViolated, LoopError, StepFailed, WorkspaceError, one_line
from .exports import write_exports
from .given import hold_values, states_of
from .history import read_history
from .interpreter import Interpreter
from .journal import Journal
from .lanes import step_key
from .live import Live
from .llm import Backend, backend
from .sources import kept_source, program_of
from .state import DONE, FAILED, SUSPENDED, State, Waiting
from .tools import Toolbox
from .verdict import judge
from .workspace import Workspace

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

AnyLoop: TypeAlias = Task | AgentLoop | ServiceLoop | EngineeringLoop

_KINDS: dict[type, str] = {Task: "task", AgentLoop: "agent", ServiceLoop: "service", EngineeringLoop: "engineering"}
_SECRET = ("key", "token", "secret", "password", "credential")
SUSPEND = "suspend"


def _quiet(done: int, total: int | None, text: str) -> None:
    """Show nothing."""


def _nothing(line: str) -> None:
    """Say nothing."""


@dataclass(kw_only=True)
class Options:
    """How a process runs a loop. None on a resume means: as the process before."""

    live: bool | None = None
    workspace: Path | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    backend: str | None = None
    backend_options: Mapping[str, Any] = field(default_factory=dict)
    tools: Toolbox | None = None
    execution: ExecutionStarted | None = None
    """What the run is an attempt at: its steps are recorded as that execution's too, and it leaves no exports."""
    stop: threading.Event = field(default_factory=threading.Event)
    progress: Callable[[int, int | None, str], None] = _quiet
    say: Callable[[str], None] = _nothing
    """Told of what went wrong and ends nothing."""


@dataclass(frozen=True)
class Ended:
    """How a process left a run: done, failed or suspended (with what it waits for)."""

    run: str
    status: str
    reason: str = ""
    waiting: Waiting | None = None
    verdict: LoopVerdict | None = None
    steps: int = 0
    swept: dict[str, Any] | None = None
    """What a sweep found: `best`, `metric`, `speedup`, `trials`, ... as its later steps see it."""
    state: State | None = None
    """Where the run stands, whole."""


def start(
    bus: "Bus", path: Path, name: str | None = None, *, run: str | None = None, options: Options | None = None
) -> Ended:
    """Run a loop of a program file from its beginning.

    Raises KnowledgeError for a program that does not check, BadValue, RunExists, WorkspaceError, Interrupted, Fenced, or a BusError.
    """
    chosen = options or Options()
    tools = chosen.tools or Toolbox.standard()
    program = load(path, tools=tools.signatures)
    loop = program.find_loop(name)
    if chosen.execution is None:  # what pursues a goal is begun with more than any one program asks for
        hold_values(program, program.system_of(loop), chosen.parameters)
    run_name = run or f"{loop.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    workspace = Workspace.open(chosen.workspace or Path.cwd(), make=bool(chosen.live))
    asked = _backend(chosen, loop, bus)
    text, used, blob = kept_source(program, bus)
    commit, dirty = git_state(path.absolute().parent)
    started = LoopStarted(
        loop=loop.name,
        kind=_KINDS[type(loop)],
        program=str(path.absolute()),
        sha256=program.sha256,
        text=text,
        used=used,
        text_blob=blob,
        parameters=dict(chosen.parameters),
        workspace=str(workspace.root),
        live=bool(chosen.live),
        backend=chosen.backend,
        backend_options=_public(chosen.backend_options),
        host=socket.gethostname(),
        pid=os.getpid(),
        git_commit=commit,
        git_dirty=dirty,
    )
    config = {
        "loop": loop.name, "kind": started.kind, "program": started.program, "sha256": program.sha256, "live": started.live,
        **dict(chosen.parameters),
    }  # fmt: skip
    also: list[Event] = [RunStarted(config=config, **describe())]
    if chosen.execution is not None:
        also.append(chosen.execution)
    journal = Journal.begin(bus, run_name, started, also)
    return _drive(bus, journal, program, loop, workspace, tools, chosen, asked)


def resume(
    bus: "Bus",
    run: str,
    *,
    path: Path | None = None,
    accept_changed_program: bool = False,
    options: Options | None = None,
) -> Ended:
    """Go on with a run where the log says it stands, in the workspace of before unless another is given.

    The program comes from the log. Where its file is there and says something else, ProgramChanged is raised, unless the
    change is accepted. A run that is over is not run again. Raises UnknownRun and what `start` raises.
    """
    chosen = options or Options()
    history = read_history(bus, run)
    state = history.state
    if state.status in {DONE, FAILED}:
        Journal.lead(bus, history).close()  # its last process may have been killed before all copies were sent
        return ended(state)
    tools = chosen.tools or _tools_of(bus, state, chosen)
    program, changed = program_of(bus, history, tools, path, accept_changed_program)
    if _still_waits(state, chosen) and not changed:
        return ended(state)
    loop = program.find_loop(state.loop)
    live = state.live if chosen.live is None else chosen.live
    if state.live != live and state.outcomes:
        raise LoopError(
            f"run {run} was begun {'with' if state.live else 'without'} --live and goes on so, or begins anew"
        )
    workspace = Workspace.open(chosen.workspace or Path(state.workspace), make=live)
    name = chosen.backend or state.backend
    same_backend = chosen.backend in {None, state.backend}
    given = {**(state.backend_options if same_backend else {}), **chosen.backend_options}
    text, used, blob = kept_source(program, bus) if changed else (None, {}, None)
    chosen.live, chosen.backend, chosen.backend_options = live, name, given
    asked = _backend(chosen, loop, bus)
    journal = Journal.lead(bus, history)
    # The first commit fences whoever led the run.
    journal.commit(
        LoopResumed(
            attempt=state.attempt + 1,
            sha256=program.sha256,
            text=text,
            used=used,
            text_blob=blob,
            accepted_change=changed,
            workspace=str(workspace.root),
            live=live,
            backend=name,
            backend_options=_public(given),
            host=socket.gethostname(),
            pid=os.getpid(),
        )
    )
    return _drive(bus, journal, program, loop, workspace, tools, chosen, asked)


def _tools_of(bus: "Bus", state: State, chosen: Options) -> Toolbox:
    """Return the tools that a run is resumed with: of one that pursues a goal, those that it was begun with."""
    if state.traced is None:
        return Toolbox.standard()
    from .goals.learner import resumed_tools

    return resumed_tools(bus, chosen.workspace or Path(state.workspace), state.parameters.get("functions"))


def ended(state: State) -> Ended:
    """Return how a run stands, in the form in which a process leaves it."""
    result = state.variables.get("result") if state.kind == _KINDS[EngineeringLoop] else None
    swept = result if isinstance(result, dict) else None
    return Ended(state.run, state.status, state.reason, state.waiting, state.verdict, state.steps, swept, state)


def _drive(
    bus: "Bus", journal: Journal, program: Program, loop: AnyLoop, workspace: Workspace, tools: Toolbox, options: Options,
    asked: Backend | None,
) -> Ended:  # fmt: skip
    context = LoopContext(
        run=journal.run,
        loop=loop.name,
        program=program,
        workspace=workspace,
        tools=tools,
        live=bool(options.live),
        backend=asked,
        parameters=dict(journal.state.parameters),
        bus=bus,
        progress=options.progress,
        clock=time.time_ns,
    )
    live = Live(program, journal, context, system=program.system_of(loop))
    live.stop = options.stop
    began = time.monotonic_ns()
    try:
        return run_loop(live, loop, began, say=options.say)
    except BaseException:
        _keep(journal)
        raise
    finally:
        if not journal.close():
            options.say(
                f"run {journal.run}: some copies of its events are not in the log yet; the next resume sends them"
            )
        workspace.close()


def run_loop(live: Live, loop: AnyLoop, began: int, *, say: Callable[[str], None] = _nothing) -> Ended:
    """Drive a run that is led to its end, or to where it waits."""
    journal = live.journal
    actions = Actions(live, Asking(live, live.context.backend, loop.properties))
    interpreter = Interpreter(live, actions)
    verdict: LoopVerdict | None = None
    reason = ""
    try:
        interpreter.prepare(_states(live), journal.state.parameters)
        if isinstance(loop, ServiceLoop):
            from .service import serve

            serve(live, loop, interpreter, say)
            return ended(journal.state)
        before, after = _around_sweep(loop)
        interpreter.steps(before)
        if isinstance(loop, EngineeringLoop):
            interpreter.step(_sweep(loop))
            interpreter.steps(after)
        live.hold("end")
        _build(live)
        verdict = journal.state.verdict or judge(live, actions, *_criteria(loop))
        if verdict.success is False:
            reason = _unmet(verdict)
    except Suspended:
        return ended(journal.state)
    except (StepFailed, EncodeError, EvaluateError) as error:
        reason = one_line(error)
        verdict = LoopVerdict(success=False if live.context.live else None, conditions=[{"error": reason}])
        if isinstance(error, InvariantViolated):
            reason = f"stopped: {reason}"
    _finish(live, verdict, reason, began)
    if live.context.live and journal.state.traced is None:
        try:
            write_exports(journal, live.context.workspace)
        except WorkspaceError as error:
            say(f"run {journal.run}: {error}")
    return ended(journal.state)


def _finish(live: Live, verdict: LoopVerdict, reason: str, began: int) -> None:
    journal = live.journal
    status = FAILED if reason else DONE
    duration = time.monotonic_ns() - began
    seconds = duration / 1e9
    numbers: dict[str, bool | int | float] = {**verdict.metrics}
    if verdict.success is not None:
        numbers["success"] = verdict.success
    last: list[Event] = [Metrics(values=numbers)] if numbers else []
    if reason:
        last.append(RunFailed(error="LoopFailed", message=reason[:2000], duration=seconds))
    else:
        last.append(RunFinished(duration=seconds))
    journal.add(verdict)
    journal.add(LoopRecorded(path="verdict", events=journal.carried(*last)))
    journal.commit(LoopFinished(status=status, reason=reason, duration_ns=duration, steps=journal.state.steps))


def _build(live: Live) -> None:
    """Make the artifacts of the program; making them again makes the same."""
    if not live.program.artifacts or not live.context.live:
        return
    from .build import build_artifacts

    live.place = Place("build", live.journal.state.steps, step_key(live.journal.run, "build"))
    build_artifacts(live.context)


def _criteria(loop: AnyLoop) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    return (loop.evaluation, loop.success) if isinstance(loop, Task | AgentLoop) else ((), ())


def _around_sweep(loop: "Task | AgentLoop | EngineeringLoop") -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Return the steps before and after the sweep, which is where `measure` is written."""
    if not isinstance(loop, EngineeringLoop) or loop.measure is None:
        return loop.steps, ()
    place = loop.measure.span.start
    late = tuple(one for one in loop.steps if one.span.start > place)
    return tuple(one for one in loop.steps if one.span.start <= place), late


def _sweep(loop: EngineeringLoop) -> Step:
    """Return an engineering loop as the one step that runs it."""
    action = Action("tool.engineering_loop", (Property("name", Literal(loop.name)),), output="result")
    return Step("sweep", (action,))


def _states(live: Live) -> dict[str, Any]:
    system = live.context.program.system_of(live.program.find_loop(live.context.loop))
    return {name: declared.default for name, declared in states_of(live.program, system).items()}


def _unmet(verdict: LoopVerdict) -> str:
    unmet = [str(one["condition"]) for one in verdict.conditions if one.get("value") is not True]
    failed = [name for name, one in verdict.checks.items() if not one["passed"]]
    return f"not a success: {', '.join(unmet or failed)}"


def _keep(journal: Journal) -> None:
    """Put what was done and not yet committed into the log, where that is still ours to do."""
    try:
        journal.commit()
    except Exception:  # noqa: BLE001  the error that ends the process is told; a resume finds out the rest
        return


def _backend(options: Options, loop: AnyLoop, bus: "Bus") -> Backend | None:
    if not isinstance(loop, Task | AgentLoop) or (options.backend is None and not options.live):
        return None
    return backend(options.backend or SUSPEND, options.backend_options, bus=bus)


def _still_waits(state: State, chosen: Options) -> bool:
    if state.status != SUSPENDED or state.waiting is None:
        return False
    return state.waiting.kind == "effect" or (chosen.backend or state.backend or SUSPEND) == SUSPEND


def _public(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a backend's options without what may be a secret: the log is for everyone's eyes."""
    plain: dict[str, Any] = msgspec.to_builtins(dict(options))
    kept = ("max_tokens", "max_tokens_field")  # of these, `_env` names a variable and the others count or spell tokens
    return {
        name: value
        for name, value in plain.items()
        if name.endswith("_env") or name in kept or not any(word in name.lower() for word in _SECRET)
    }
