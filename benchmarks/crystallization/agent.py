"""The scripted agent: it does a task as a careful but untidy person would, and every step is recorded.

What it answers is computed by the family's own code, never by a tool of the toolsmith. Its noise is drawn from a seed: a
look at something that is not needed, a wrong name first, the same thing read twice, independent reads in another order, a
server that fails once. Some of its runs fail: a wrong answer, or an exception in the middle.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from world import World

from morphogen.kernels.sandbox import Refused

MODEL = "scripted-agent"


class Steps(Protocol):
    """Where steps go: the recorder, or nothing but the tools themselves."""

    def call(self, name: str, /, **args: Any) -> Any:
        """Use a tool."""
        ...

    def asked(self, *, model: str, prompt: str, reply: str, tokens_in: int, tokens_out: int) -> None:
        """Note a question to the model."""
        ...


class Bare:
    """Uses the tools and records nothing: what the right answer is found with."""

    def __init__(self, world: World) -> None:
        self._functions = world.capabilities.functions

    def call(self, name: str, /, **args: Any) -> Any:
        """Use a tool."""
        return self._functions[name].function(**args)

    def asked(self, **_: Any) -> None:
        """Note nothing."""


@dataclass
class Agent:
    """One pursuit of one goal: tools and thoughts through `steps`, untidy where `noise` is given."""

    steps: Steps
    world: World
    noise: random.Random | None = None
    strays: Sequence[tuple[str, dict[str, Any]]] = ()
    gives_up: bool = False
    _used: int = field(default=0, init=False)

    def use(self, name: str, /, **args: Any) -> Any:
        """Use a tool, with whatever else happens around it."""
        self._used += 1
        if self.gives_up and self._used == 1:
            self.steps.call("files.read_text", path="notes/missing.txt")
        if self.noise is None:
            return self.steps.call(name, **args)
        self._stray(0.15)
        if name in ("files.read_text", "disk.size") and self.noise.random() < 0.08:
            self._slip(name, args)
        if name == "http.get" and self.noise.random() < 0.1:
            self.world.site.fail_once(args["path"])
            self._tried(name, args)
        result = self.steps.call(name, **args)
        if self.world.capabilities.functions[name].effect == "read" and self.noise.random() < 0.06:
            self.steps.call(name, **args)
        return result

    def each(self, calls: Sequence[tuple[str, dict[str, Any]]]) -> list[Any]:
        """Use several tools whose order does not matter; the results come in the order of `calls`."""
        order = list(range(len(calls)))
        if self.noise is not None and self.noise.random() < 0.3:
            self.noise.shuffle(order)
        found = {place: self.use(calls[place][0], **calls[place][1]) for place in order}
        return [found[place] for place in range(len(calls))]

    def think(self, prompt: str, reply: object) -> None:
        """Say what the model was asked and said; tokens are counted as four characters each."""
        said = str(reply)
        tokens_in, tokens_out = 400 + len(prompt) // 4, 20 + len(said) // 4
        self.steps.asked(model=MODEL, prompt=prompt, reply=said, tokens_in=tokens_in, tokens_out=tokens_out)

    def _stray(self, chance: float) -> None:
        assert self.noise is not None
        if self.strays and self.noise.random() < chance:
            name, args = self.noise.choice(list(self.strays))
            self._tried(name, args)

    def _slip(self, name: str, args: dict[str, Any]) -> None:
        """Ask for a name that is almost right."""
        path = str(args["path"])
        self._tried(name, args | {"path": path.replace(".", "_", 1) if "." in path else path + ".txt"})

    def _tried(self, name: str, args: dict[str, Any]) -> None:
        try:
            self.steps.call(name, **args)
        except (OSError, Refused):
            return


Prepare = Callable[[World, random.Random, int], dict[str, Any]]
Solve = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class TaskFamily:
    """A kind of task: how one comes about, and how it is done rightly.

    `prepare(world, dice, number)` makes what task `number` needs and returns its parameters. `solve(agent, **params)` does it.
    `goal` names the parameters in braces; they are filled in unless `placeholders`. `environment` is recorded.
    """

    name: str
    goal: str
    prepare: Prepare
    solve: Solve
    strays: tuple[tuple[str, dict[str, Any]], ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    placeholders: bool = False
    sql: bool = False
    why: str = ""  # of a misleading family: what a tool would get wrong
    # Of a misleading family: tasks as they come in use, where what coincided while recording no longer does.
    in_use: Prepare | None = None
    environment_in_use: dict[str, str] | None = None

    def wording(self, params: dict[str, Any]) -> str:
        """Return the goal as it is said for these parameters."""
        return self.goal if self.placeholders else self.goal.format(**params)

    def right(self, world: World, params: dict[str, Any]) -> Any:
        """Do the task without noise and without recording; return the answer."""
        return self.solve(Agent(Bare(world), world), **params)
