"""What `morphogen do` is made of: dispatch, the tools there are, and loops for what neither tools nor records can do."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from morphogen.consumers.crystallizer import Loader, Registry
from morphogen.consumers.dispatch import Dispatcher, Request, Result, open_diary, read_state
from morphogen.consumers.dispatch.state import catch_up
from morphogen.consumers.executions import Trace, tool_name
from morphogen.kernels.sandbox import Capabilities, Sandbox
from morphogen.producers.executions import environment_of, read_prices
from morphogen.producers.loops.errors import Interrupted
from morphogen.producers.loops.goals import (
    GuidedLoop,
    LoopLearner,
    LoopOrchestrator,
    Part,
    PartAsked,
    Program,
    Pursued,
    capabilities_of,
    tools_named,
)
from morphogen.producers.loops.goals.learner import ROUNDS
from morphogen.producers.loops.tools import Toolbox
from morphogen.producers.loops.workspace import Workspace
from morphogen.schemas import Event
from morphogen.schemas.dispatch import DispatchDecided, DispatchFinished
from morphogen.schemas.event import Unknown
from morphogen.schemas.executions import ExecutionStarted

from .do_settings import DoSettings

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus
    from morphogen.bus.settings import Settings

CRYSTAL = "crystal"
RUN = "tool.run"


@dataclass(kw_only=True)
class Chosen:
    """What a command line asks for, over the settings of the file."""

    settings: DoSettings
    folder: Path
    """Of the file of settings: programs that it names are relative to it."""
    workspace: Path
    program: Program | None = None
    backend: str | None = None
    backend_options: Mapping[str, Any] = field(default_factory=dict)
    read_only: bool = False
    allow_run: bool = False
    judge: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    progress: Callable[[int, int | None, str], None] = lambda done, total, text: None
    say: Callable[[str], None] = lambda line: None

    def program_for(self, signature: str, template: str) -> Program:
        """Return the program that pursues the goals of a family."""
        return self.program or self.settings.programs(self.folder).get(signature) or Program()


@dataclass(frozen=True)
class Wired:
    """Everything put together. `unfinished` are requests whose process ended before they did; they are told as ended now."""

    dispatcher: Dispatcher
    loader: Loader
    learner: LoopLearner
    unfinished: tuple[DispatchDecided, ...] = ()

    def unloaded(self, signature: str) -> str | None:
        """Return why the tool of a family cannot be called here, None where there is none or it can be."""
        return self.loader.boot.refused.get(tool_name(signature))


@contextlib.contextmanager
def wired(bus: "Bus", settings: "Settings", chosen: Chosen, signature: str, *, record: bool = True) -> Iterator[Wired]:
    """Put dispatch together for goals of a family, and take it apart again. Without `record` nothing is written.

    Raises KnowledgeError for a program that does not check, BackendError, WorkspaceError, or a BusError.
    """
    toolbox = Toolbox.standard()
    program = chosen.program_for(signature, "")
    named = frozenset() if program.standard else tools_named(program, toolbox)
    workspace = Workspace.open(chosen.workspace)
    with contextlib.ExitStack() as stack:
        stack.callback(workspace.close)
        capabilities = _capabilities(bus, toolbox, workspace, chosen, named)
        registry = _registry(bus)
        sandbox = stack.enter_context(Sandbox(capabilities=capabilities, pool=1))
        loader = Loader(registry, capabilities, sandbox, trusted=chosen.settings.trusted)
        state = read_state(bus)
        write: Callable[[Event], object] = (
            stack.enter_context(open_diary(settings)).tell if record else lambda event: None
        )
        unfinished = state.unfinished if record else ()
        for lost in unfinished:
            ended = DispatchFinished(
                request=lost.request, signature=lost.signature, mode=lost.mode, ok=False, error="its process ended before it did"
            )  # fmt: skip
            write(ended)
            state.told(ended)
        environment = environment_of(chosen.settings.packages, chosen.settings.environment)
        learner = _learner(bus, settings, toolbox, chosen)
        can_learn = learner.backend is not None or not program.standard
        config = chosen.settings.config()

        def refresh() -> int:
            return catch_up(bus, state)

        def part(asked: PartAsked) -> Part:
            """Serve a part of a goal in its own cheapest way; a part has no parts."""
            inner = _learner(bus, settings, toolbox, chosen, parent=asked.parent)
            dispatcher = Dispatcher(
                capabilities=asked.capabilities, state=state, write=_child_of(asked.parent, write), crystals=loader,
                learner=_Learns(inner), guided=_Guides(inner), environment=environment, config=config, refresh=refresh,
            )  # fmt: skip
            done = dispatcher.do(asked.goal, asked.params, budget_microusd=asked.budget_microusd)
            return Part(
                ok=done.ok, mode=done.mode, output=done.output, error=done.error, cost_microusd=done.cost_microusd,
                execution=done.execution,
            )  # fmt: skip

        splits = learner.backend not in {None, "suspend"}  # who waits for an answer does not wait for several at once
        yield Wired(
            Dispatcher(
                capabilities=capabilities, state=state, write=write, crystals=loader,
                learner=_Learns(learner) if can_learn else None,
                guided=_Guides(learner) if can_learn else None,
                orchestrator=_Orchestrates(LoopOrchestrator(learner=learner, dispatch=part)) if splits else None,
                environment=environment, config=config,
            ),
            loader,
            learner,
            unfinished,
        )  # fmt: skip


class _Learns:
    """LEARNER over a loop."""

    def __init__(self, learner: LoopLearner) -> None:
        self._learner = learner

    @property
    def cap_microusd(self) -> int | None:
        return self._learner.cap_microusd

    def run(self, request: Request, budget: int | None) -> Result:
        return _result(lambda: self._learner.pursue(request, budget))


class _Guides:
    """MIXED over the same loop."""

    def __init__(self, learner: LoopLearner) -> None:
        self._loop = GuidedLoop(learner)

    @property
    def cap_microusd(self) -> int | None:
        return self._loop.cap_microusd

    def run(self, request: Request, guide: Trace, budget: int | None) -> Result:
        return _result(lambda: self._loop.run(request, guide, budget))


class _Orchestrates:
    """ORCHESTRATOR over several loops."""

    def __init__(self, orchestrator: LoopOrchestrator) -> None:
        self._orchestrator = orchestrator

    @property
    def cap_microusd(self) -> int | None:
        return self._orchestrator.cap_microusd

    def run(self, request: Request, budget: int | None) -> Result:
        return _result(lambda: self._orchestrator.pursue(request, budget))


def _result(pursue: Callable[[], Pursued]) -> Result:
    try:
        done = pursue()
    except Interrupted as error:
        raise KeyboardInterrupt(str(error)) from None  # no other mode is to be tried
    return Result(
        ok=done.ok, output=done.output, error=done.error, cost_microusd=done.cost_microusd, duration_ns=done.duration_ns,
        execution=done.execution, steps=done.steps,
    )  # fmt: skip


def _capabilities(
    bus: "Bus", toolbox: Toolbox, workspace: Workspace, chosen: Chosen, named: frozenset[str]
) -> Capabilities:
    """Return what may be done: what a program names is its author's choice; what a model may choose is narrower."""
    runs = chosen.allow_run or chosen.settings.allow_run or RUN in named
    without = {*chosen.settings.without, *(() if runs else (RUN,))}
    found = capabilities_of(toolbox, workspace, bus=bus, without=without, write=not chosen.read_only)
    kept = {name: declared for name, declared in found.functions.items() if name not in without}
    return Capabilities(tools=kept)


def _learner(
    bus: "Bus", settings: "Settings", toolbox: Toolbox, chosen: Chosen, parent: str | None = None
) -> LoopLearner:
    name = chosen.backend or chosen.settings.backend
    same = chosen.backend in {None, chosen.settings.backend}
    options = {**(chosen.settings.backend_options if same else {}), **chosen.backend_options}
    if name == "openai" and "prices" not in options:
        prices = read_prices(settings.home).models
        options["prices"] = {model: msgspec.to_builtins(price) for model, price in prices.items()}
    return LoopLearner(
        bus=bus, workspace=chosen.workspace, toolbox=toolbox, program_for=chosen.program_for, backend=name,
        backend_options=options, rounds=chosen.settings.rounds or ROUNDS, judge=chosen.judge or chosen.settings.judge,
        parent=parent, stop=chosen.stop, progress=chosen.progress, say=chosen.say,
    )  # fmt: skip


def _registry(bus: "Bus") -> Registry:
    """Return the tools as archive and log have them."""
    registry = Registry()
    for seen in bus.past(family=CRYSTAL):
        if seen.frame.replay is None and not isinstance(seen.event, Unknown):
            registry.seen(seen.event)
    return registry


def _child_of(parent: str, write: Callable[[Event], object]) -> Callable[[Event], object]:
    """Return what writes events of a part: an execution that begins tells what it is a part of."""

    def tell(event: Event) -> object:
        if isinstance(event, ExecutionStarted) and event.parent is None:
            event = msgspec.structs.replace(event, parent=parent)
        return write(event)

    return tell
