"""Promoted tools, tried on tasks that nobody has recorded: the answer and the files must be the agent's own."""

import copy
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent import TaskFamily
from shop import Shop
from world import World

from morphogen.consumers.crystallizer import GuardMissed
from morphogen.kernels.sandbox import value_sha256
from morphogen.producers.executions import settled


@dataclass
class Probed:
    """How often it was right, wrong, kept out by a guard, or failed and said so. `example` is the first that was wrong."""

    right: int = 0
    wrong: int = 0
    guarded: int = 0
    failed: int = 0
    example: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def probe_tool(shop: Shop, family: TaskFamily, count: int, *, in_use: bool = False) -> Probed:
    """Call the active tool on `count` new tasks; with `in_use`, on those on which a misleading past shows."""
    found = Probed()
    signature = shop.signature(family)
    world = shop.stage.world(family)
    for number in range(count):
        params = shop.task(family, in_use=in_use)
        truth = _Truth(shop, family, params, number)
        try:
            called = shop.loader.call(
                signature, params, f"probe-{family.name}-{number}", shop.environment(family, in_use=in_use),
                capabilities=world.capabilities,
            )  # fmt: skip
        except GuardMissed as missed:
            found.guarded += 1
            found.example = found.example or f"guard: {missed}"
            truth.forget()
            continue
        if not called.ok:
            found.failed += 1
            found.example = found.example or f"{params}: {called.error}"
            truth.forget()
            continue
        _count(found, truth.differs(called.value), params)
    return found


def probe_dispatch(shop: Shop, family: TaskFamily, count: int) -> Probed:
    """Have `count` tasks in use served in whatever mode dispatch takes; those that the agent itself served are right."""
    found = Probed()
    for number in range(count):
        params = shop.task(family, in_use=True)
        truth = _Truth(shop, family, params, number)
        done = shop.do(family, params, in_use=True)
        if done.mode == "learner":
            found.guarded += 1
            truth.forget()
        elif not done.ok:
            found.failed += 1
            truth.forget()
        else:
            _count(found, truth.differs(done.output), {"mode": done.mode, **params})
    return found


class _Truth:
    """What the agent does with a task, found out in a twin of the world."""

    def __init__(self, shop: Shop, family: TaskFamily, params: dict[str, Any], number: int) -> None:
        self._world = shop.stage.world(family)
        self._folder = Path(shop.stage.settings.home) / "twins" / f"{family.name}-{number}"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.parent.mkdir(exist_ok=True)
        self._twin: World = self._world.twin(self._folder)
        posted = self._world.site.posted
        before = len(posted)
        self.answer = family.right(self._twin, copy.deepcopy(params))
        self._said = posted[before:]
        self._before = len(posted)

    def differs(self, answer: Any) -> str:
        """Say how an answer, or what was done for it, differs from the agent's; nothing where it does not."""
        try:
            if value_sha256(settled(answer)) != value_sha256(settled(self.answer)):
                return f"{answer!r} instead of {self.answer!r}"
            if self._world.files() != self._twin.files():
                return "it leaves other files"
            if self._world.site.posted[self._before :] != self._said:
                return "it posts otherwise"
            return ""
        finally:
            self.forget()

    def forget(self) -> None:
        """Remove the twin."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _count(found: Probed, difference: str, params: dict[str, Any]) -> None:
    if difference:
        if not found.wrong:
            found.example = f"{params}: {difference}"[:400]
        found.wrong += 1
    else:
        found.right += 1
