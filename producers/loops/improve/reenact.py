"""Run a loop again by the same interpreter, over what one run recorded."""

from typing import TYPE_CHECKING, cast

from morphogen.schemas import LoopStarted
from morphogen.schemas.knowledge.program import Program
from morphogen.schemas.knowledge.tree import AgentLoop, Call, Expr, Task
from morphogen.schemas.knowledge.wording import source as written

from ..actions import QUERY, Actions, Suspended
from ..asking import Asking
from ..context import LoopContext
from ..errors import StepFailed
from ..interpreter import Interpreter
from ..live import Live
from ..memory import Memory
from ..state import DONE, FAILED, SUSPENDED
from ..tools import Toolbox
from ..verdict import judge
from .history import RecordedRun
from .names import nodes
from .recorded import ACTS, Enacted, MemoryBlobs, NotRecorded, NoWorkspace, RecordedModel, RecordedTool, Records

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

    from ..workspace import Workspace

_OF_FILES = frozenset({"file_exists", "file_contains"})


def enact(program: Program, loop: Task | AgentLoop, run: RecordedRun, shared: Records, bus: "Bus | None") -> Enacted:
    """Run a loop over what one run recorded. Raises NotRecorded."""
    done = Enacted()
    records = shared.of(run)
    memory = MemoryBlobs(bus)
    context = LoopContext(
        run=run.run,
        loop=loop.name,
        program=program,
        workspace=cast("Workspace", NoWorkspace()),
        tools=Toolbox(
            {name: RecordedTool(one, records, done) for name, one in shared.signatures.items() if name != QUERY}
        ),
        live=True,
        backend=RecordedModel(records, done),
        parameters=dict(run.started.parameters),
        bus=cast("Bus", memory),
    )
    started = LoopStarted(
        loop=loop.name,
        kind=run.kind,
        program=program.path,
        sha256=program.sha256,
        parameters=dict(run.started.parameters),
        live=True,
    )
    journal = Memory().begin(run.run, started, clock=lambda: 0)
    live = Live(program, journal, context, system=program.system_of(loop))
    records.journal = journal
    actions = Actions(live, Asking(live, context.backend, tuple(one for one in loop.properties if one.key != "budget")))
    interpreter = Interpreter(live, actions)
    try:
        interpreter.prepare(_states(program, loop), dict(run.started.parameters))
        interpreter.steps(loop.steps)
        live.hold("end")
        done.success = _judged(live, actions, loop, run, done)
        done.status = FAILED if done.success is False else DONE
    except Suspended:
        done.status = SUSPENDED
    except StepFailed:
        done.status, done.success = FAILED, False
    done.steps = journal.state.steps
    return done


def _states(program: Program, loop: Task | AgentLoop) -> dict[str, Expr | None]:
    system = program.system_of(loop)
    prefix = f"{system}." if system else ""
    return {name.removeprefix(prefix): one.default for name, one in program.states.items() if name.startswith(prefix)}


def _judged(live: Live, actions: Actions, loop: Task | AgentLoop, run: RecordedRun, done: Enacted) -> bool | None:
    """Return the verdict; conditions on files hold as they did where the same was done to the files. Raises NotRecorded."""
    of_files = [
        one for one in loop.success if any(isinstance(node, Call) and node.name in _OF_FILES for node in nodes(one))
    ]
    others = [one for one in loop.success if not any(one is other for other in of_files)]
    verdict = judge(live, actions, loop.evaluation, others)
    if not loop.success:
        return verdict.success
    held = [one["value"] is True for one in verdict.conditions]
    if of_files:
        acted = [
            (step.action, step.arguments_sha256) for step in run.actions if step.effect in ACTS and step.action != QUERY
        ]
        if done.acts != acted:
            raise NotRecorded("it does other things to the world, and success depends on files")
        recorded = {one.get("condition"): one.get("value") for one in (run.verdict.conditions if run.verdict else ())}
        for one in of_files:
            if written(one) not in recorded:
                raise NotRecorded(f"nobody looked whether {written(one)}")
            held.append(recorded[written(one)] is True)
    return all(held)
