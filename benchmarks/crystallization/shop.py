"""Where tools are made and used: the crystallizer, one loader, and for each world a dispatcher with the scripted agent."""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from agent import TaskFamily
from serving import ScriptedLearner
from stage import Stage

from morphogen.consumers.crystallizer import Loader, NotMade
from morphogen.consumers.crystallizer.toolsmith import Made
from morphogen.consumers.crystallizer.worker import Crystallizer
from morphogen.consumers.dispatch import Dispatcher, DispatchState, Done, WordLlama
from morphogen.consumers.dispatch.state import catch_up
from morphogen.kernels.sandbox import Sandbox
from morphogen.producers.executions import environment_of, flush, outlet
from morphogen.schemas.goals import signature

SHADOWS = 4  # requests that a new version runs beside; three must agree
BEGIN = 10_000  # number of the first task after those that were recorded


@dataclass
class Shop:
    """Everything wired. `tasks` counts the tasks that each family was given since recording."""

    stage: Stage
    sandbox: Sandbox
    crystallizer: Crystallizer
    loader: Loader
    state: DispatchState
    embedder: WordLlama = field(default_factory=WordLlama)
    dispatchers: dict[str, Dispatcher] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)

    def environment(self, family: TaskFamily, *, in_use: bool = False) -> dict[str, str]:
        """Return what a request for a family tells of its environment."""
        own = family.environment_in_use if in_use and family.environment_in_use is not None else family.environment
        return environment_of((), own)

    def dispatcher(self, family: TaskFamily, *, in_use: bool = False) -> Dispatcher:
        """Return the dispatcher of a family's world."""
        name = f"{family.name} in use" if in_use else family.name
        if name not in self.dispatchers:
            self.dispatchers[name] = Dispatcher(
                capabilities=self.stage.world(family).capabilities,
                state=self.state,
                write=outlet(settings=self.stage.settings).tell,
                crystals=self.loader,
                learner=ScriptedLearner(self.stage, family),
                embedder=self.embedder,
                environment=self.environment(family, in_use=in_use),
            )
        return self.dispatchers[name]

    def task(self, family: TaskFamily, *, in_use: bool = False) -> dict[str, Any]:
        """Make the next task of a family; return its parameters."""
        number = self.tasks[family.name] = self.tasks.get(family.name, BEGIN - 1) + 1
        prepare = family.in_use if in_use and family.in_use is not None else family.prepare
        return prepare(self.stage.world(family), random.Random(f"{family.name} {number}"), number)

    def do(self, family: TaskFamily, params: dict[str, Any], *, mode: str | None = None, in_use: bool = False) -> Done:
        """Have a request served."""
        return self.dispatcher(family, in_use=in_use).do(family.wording(params), params, mode=mode)

    def signature(self, family: TaskFamily) -> str:
        """Return the family's signature, as its first task has it."""
        params = family.prepare(self.stage.world(family), random.Random(f"{family.name} 0"), 0)
        return signature(family.wording(params), params)

    def make(self, family: TaskFamily) -> Made | str:
        """Have a tool made of a family by synthesis; where there is nothing to make it from, return why."""
        try:
            return self.crystallizer.make(self.signature(family))
        except NotMade as reason:
            return str(reason)

    def shadow(self, family: TaskFamily) -> None:
        """Serve some requests by the learner, with the new version beside."""
        self.loader.refresh()
        for _ in range(SHADOWS):
            self.do(family, self.task(family), mode="learner")

    def settle(self) -> None:
        """Bring what was told into the log, decide on versions, and load what is active now."""
        if not flush():
            raise SystemExit("the log does not take the events; see the lines above")
        self.crystallizer.round()
        self.crystallizer.catch_up()
        catch_up(self.stage.bus, self.state)
        refreshed = self.loader.refresh()
        if refreshed.refused:
            raise SystemExit(f"tools could not be loaded: {refreshed.refused}")


@contextlib.contextmanager
def shop(stage: Stage, family: TaskFamily) -> Iterator[Shop]:
    """Open a shop; `family` is any one, whose world declares the names of the tools for all."""
    capabilities = stage.world(family).capabilities
    with Sandbox(pool=4) as sandbox:
        crystallizer = Crystallizer(stage.bus, sandbox, stage.settings.home, capabilities=capabilities)
        crystallizer.catch_up()
        state = DispatchState()
        catch_up(stage.bus, state)
        loader = Loader(crystallizer.past.registry, capabilities, sandbox)
        yield Shop(stage, sandbox, crystallizer, loader, state)
