"""Pursue a goal by an agent loop: the standard one, or a task of a knowledge module that is meant for it.

The loop is a durable run like any other: each step is an event before it acts, so it is gone on with after a kill
(`morphogen loop resume`), and its steps are the execution's. It acts through the declared functions alone.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from morphogen.kernels.sandbox import Capabilities, value_sha256
from morphogen.schemas.executions import ExecutionStarted
from morphogen.schemas.goals import NORM_VERSION

from ..asking import GUIDE
from ..llm import Backend, Query, backend
from ..llm.budget import Priced
from ..runner import Options, start
from ..state import DONE, SUSPENDED
from ..tools.toolbox import Tool, Toolbox
from ..tracing import answer_of, cost_of
from .acting import acting, told
from .forms import Course, Did, done_before, guide_of, move_form, verdict_form

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus


STANDARD = Path(__file__).parent / "pursue.mk"
ROUNDS = 16
_NOT_FOR_MODELS = ("files.read_bytes", "files.write_bytes")  # a model reads and writes text


class Wanted(Protocol):
    """A goal that is to be reached now, as dispatch asks for it."""

    @property
    def id(self) -> str:
        """Return the name of the request."""

    @property
    def goal(self) -> str:
        """Return what is wanted, in words."""

    @property
    def params(self) -> Mapping[str, Any]:
        """Return the values in it by name."""

    @property
    def template(self) -> str:
        """Return the goal with its values named."""

    @property
    def signature(self) -> str:
        """Return the name of its family."""

    @property
    def capabilities(self) -> Capabilities:
        """Return what may be done for it."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Return what its course may depend on."""

    @property
    def done(self) -> Sequence[Did]:
        """Return what modes that failed have already changed for it."""


@dataclass(frozen=True)
class Program:
    """A module's file, and the task or agent loop in it (None: the only one)."""

    file: Path = STANDARD
    name: str | None = None

    @property
    def standard(self) -> bool:
        """Whether it is the one that ships with the package."""
        return self.file == STANDARD


@dataclass(frozen=True, kw_only=True)
class Pursued:
    """What came of it. `waiting` says that the loop is suspended until somebody answers; cost is None where unknown."""

    ok: bool
    output: Any = None
    error: str | None = None
    cost_microusd: int | None = None
    duration_ns: int = 0
    execution: str | None = None
    steps: int = 0
    waiting: bool = False


def _quiet(done: int, total: int | None, text: str) -> None:
    """Show nothing."""


def _nothing(line: str) -> None:
    """Say nothing."""


@dataclass(kw_only=True)
class LoopLearner:
    """Runs loops for goals, in one workspace.

    `program_for` names the program of a family, by signature and template. `judge` has a second question decide whether
    the standard loop's answer is right; else nobody judges it. `parent` is the execution that this one is a part of.
    """

    bus: "Bus"
    workspace: Path
    toolbox: Toolbox = field(default_factory=Toolbox.standard)
    program_for: Callable[[str, str], Program] = lambda signature, template: Program()
    backend: str | None = None
    backend_options: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = ROUNDS
    judge: bool = False
    parent: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    progress: Callable[[int, int | None, str], None] = _quiet
    say: Callable[[str], None] = _nothing

    @property
    def cap_microusd(self) -> int | None:
        """The most that a run can cost: 0 where models cost nothing, None where the price or the number of questions is open."""
        if self.backend is None:
            return 0
        asked: Backend = backend(self.backend, self.backend_options, bus=self.bus)
        price = asked.price(Query("")) if isinstance(asked, Priced) else None
        return 0 if price is not None and price.input == price.output == 0 else None

    def pursue(self, wanted: Wanted, budget: int | None, *, mode: str = "learner", guide: str | None = None) -> Pursued:
        """Pursue a goal for at most `budget` micro-dollars (None: no bound), which no question to a model may exceed.

        With `guide` (see `guide_of`) every model that is asked is shown a course that reached a like goal. Raises
        KnowledgeError for a program that does not check, BackendError, Interrupted, Fenced, or a BusError.
        """
        program = self.program_for(wanted.signature, wanted.template)
        if program.standard and self.backend is None:
            return Pursued(ok=False, error="no model can be asked: name a backend, or a program", cost_microusd=0)
        parameters = standard_parameters(self, wanted) if program.standard else program_parameters(wanted)
        return self.run_program(program, wanted, parameters, budget, mode=mode, guide=guide)

    def run(self, request: Wanted, budget: int | None) -> Pursued:
        """Pursue a goal from nothing, as a dispatcher's `learner`."""
        return self.pursue(request, budget)

    def run_program(
        self,
        program: Program,
        wanted: Wanted,
        parameters: Mapping[str, Any],
        budget: int | None,
        *,
        mode: str,
        guide: str | None = None,
        extra: Callable[[str], Mapping[str, Tool]] = lambda execution: {},
    ) -> Pursued:
        """Run a program as one execution; `extra` gives it further tools, by the execution's name."""
        began = time.monotonic_ns()
        started = self._started(wanted, budget, mode)
        ended = start(
            self.bus,
            program.file,
            program.name,
            run=started.execution,
            options=Options(
                live=True,
                workspace=self.workspace,
                parameters={**parameters, **({} if guide is None else {GUIDE: guide})},
                backend=self.backend,
                backend_options=self.backend_options,
                tools=acting(self.toolbox, wanted.capabilities, extra(started.execution)),
                execution=started,
                stop=self.stop,
                progress=self.progress,
                say=self.say,
            ),
        )
        state = ended.state
        assert state is not None
        return Pursued(
            ok=ended.status == DONE,
            execution=started.execution,
            output=answer_of(state, self.bus) if ended.status == DONE else None,
            error=None if ended.status == DONE else _why(ended.run, ended.status, ended.reason),
            cost_microusd=cost_of(state),
            duration_ns=time.monotonic_ns() - began,
            steps=0 if state.traced is None else state.traced.steps,
            waiting=ended.status == SUSPENDED,
        )

    def _started(self, wanted: Wanted, budget: int | None, mode: str) -> ExecutionStarted:
        environment = dict(wanted.environment)
        return ExecutionStarted(
            execution=f"{wanted.id}-{mode}",
            goal=wanted.goal,
            template=wanted.template,
            signature=wanted.signature,
            norm_version=NORM_VERSION,
            params=dict(wanted.params),
            environment=environment,
            environment_sha256=value_sha256(environment),
            mode=mode,
            parent=self.parent,
            request=wanted.id,
            budget_microusd=budget,
        )


@dataclass(frozen=True)
class GuidedLoop:
    """The same loop as a dispatcher's `guided`: every model that it asks is shown a course that reached a like goal."""

    learner: LoopLearner

    @property
    def cap_microusd(self) -> int | None:
        """The most that a run can cost; see `LoopLearner.cap_microusd`."""
        return self.learner.cap_microusd

    def run(self, request: Wanted, guide: Course, budget: int | None) -> Pursued:
        """Pursue the request's goal, having seen how `guide` reached a like one."""
        course = guide_of(guide.goal, guide.params, guide.steps, guide.output)
        return self.learner.pursue(request, budget, mode="mixed", guide=course)


def standard_parameters(learner: LoopLearner, wanted: Wanted) -> dict[str, Any]:
    """Return what the standard loop is begun with."""
    return {
        "goal": wanted.goal,
        "params": dict(wanted.params),
        **functions_for_models(wanted.capabilities, learner.toolbox),
        "verdict_form": verdict_form(),
        "rounds": list(range(1, learner.rounds + 1)),
        "judged": learner.judge,
        "course": done_before(wanted.done),
    }


def functions_for_models(capabilities: Capabilities, toolbox: Toolbox) -> dict[str, Any]:
    """Return which functions a model may choose from, as names, as lines for it, and as the form of a choice."""
    names = [name for name in capabilities.names if name not in _NOT_FOR_MODELS]
    return {"functions": names, "tools": told(capabilities, names, toolbox), "move_form": move_form(names)}


def program_parameters(wanted: Wanted) -> dict[str, Any]:
    """Return what a program of one's own is begun with: the goal, all parameters as a map, and each by its name; and what is done."""
    done = [{"name": one.name, "args": dict(one.args), "result": one.result} for one in wanted.done]
    return {"goal": wanted.goal, "params": dict(wanted.params), "done": done, **wanted.params}


def resumed_tools(bus: "Bus", workspace: Path, functions: object) -> Toolbox:
    """Return the tools of a run that pursues a goal, for a process that goes on with it: those functions, and no others."""
    from ..tracing import DISPATCH
    from ..workspace import Workspace
    from .hands import capabilities_of
    from .orchestrator import NoDispatch

    toolbox = Toolbox.standard()
    every = capabilities_of(toolbox, Workspace.open(workspace), bus=bus, without=())
    names = functions if isinstance(functions, list) else every.names
    kept = {name: declared for name, declared in every.functions.items() if name in names}
    return acting(toolbox, Capabilities(tools=kept), {DISPATCH: NoDispatch()})


def _why(run: str, status: str, reason: str) -> str:
    if status == SUSPENDED:
        return f"{reason}; answer with `morphogen loop answer {run} --text '...'`, then `morphogen loop resume {run}`"
    return reason or status


__all__ = [
    "GUIDE",
    "ROUNDS",
    "STANDARD",
    "GuidedLoop",
    "LoopLearner",
    "Program",
    "Pursued",
    "Wanted",
    "functions_for_models",
    "program_parameters",
    "resumed_tools",
    "standard_parameters",
]
