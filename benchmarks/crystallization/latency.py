"""How long a request takes: a tool, in a fresh process and in a pooled one, against FOLLOWER and the scripted LEARNER, in turn and in the same run.

A tool's call is the loader's, isolation and guards included, and nothing else; it does the same reads and requests on
loopback as the others do: `fresh_own` and `pooled_own` are without the time that those took themselves. `request` is a whole request served by a tool, with the decision and its record. LEARNER is the loop of
`morphogen do`, each step an event before it acts, with a script for a model: it answers at once, so a real one comes on top.
"""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from agent import Agent, Bare, TaskFamily
from shop import Shop

from morphogen.consumers.crystallizer import Called, Loader
from morphogen.consumers.dispatch import Request
from morphogen.kernels.sandbox import Sandbox
from morphogen.producers.loops.goals import LoopLearner, Pursued
from morphogen.schemas.goals import template

PAUSE = 0.1  # seconds before a call: the pool makes its next worker, and what the call before has written is folded


def latency(shop: Shop, families: list[TaskFamily], rounds: int) -> dict[str, Any]:
    """Measure every family whose tool is active and only reads; return medians in milliseconds by family and over all."""
    found: dict[str, dict[str, float]] = {}
    with Sandbox(pool=0) as forking:
        fresh = Loader(shop.crystallizer.past.registry, shop.loader.capabilities, forking)
        for family in families:
            signature = shop.signature(family)
            version = shop.loader.active(signature)
            if version is None or not set(version.made.effects) <= {"pure", "read"}:
                continue
            found[family.name] = _family(shop, family, fresh, signature, rounds)
    ways = ("fresh", "pooled", "fresh_own", "pooled_own", "request", "follower", "learner")
    timed = {way: [one[way] for one in found.values() if way in one] for way in ways}
    medians = {way: statistics.median(each) for way, each in timed.items() if each}
    return {"families": found, "median": medians}


def _family(shop: Shop, family: TaskFamily, fresh: Loader, signature: str, rounds: int) -> dict[str, float]:
    world, environment = shop.stage.world(family), shop.environment(family)
    times: dict[str, list[float]] = {}

    def call(loader: Loader, params: dict[str, Any]) -> Called:
        return loader.call(signature, params, "latency", environment, capabilities=world.capabilities)

    call(shop.loader, shop.task(family))
    for _ in range(rounds):
        params = shop.task(family)
        for way, use in (("fresh", fresh), ("pooled", shop.loader)):
            time.sleep(PAUSE)
            took, called = _timed(lambda use=use, params=params: call(use, params))  # type: ignore[misc]
            if called.ok:
                times.setdefault(way, []).append(took)
                own = took - sum(one.duration_ns for one in called.uses) / 1e6
                times.setdefault(f"{way}_own", []).append(own)
        for way, mode, served in (("request", None, "crystallized"), ("follower", "follower", "follower")):
            time.sleep(PAUSE)
            took, done = _timed(lambda mode=mode, params=params: shop.do(family, params, mode=mode))  # type: ignore[misc]
            if done.ok and done.mode == served:
                times.setdefault(way, []).append(took)
        took, pursued = _looped(shop, family, params)
        if pursued.ok:
            times.setdefault("learner", []).append(took)
    return {way: statistics.median(each) for way, each in times.items()}


class _Noting(Bare):
    """Uses the tools and notes each use, as a model would ask for it."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.moves: list[dict[str, Any]] = []

    def call(self, name: str, /, **args: Any) -> Any:
        """Use a tool."""
        self.moves.append({"tool": name, "arguments": args})
        return super().call(name, **args)


def _looped(shop: Shop, family: TaskFamily, params: dict[str, Any]) -> tuple[float, Pursued]:
    """Pursue a goal by the standard loop; its model's script says what the agent does."""
    world = shop.stage.world(family)
    noting = _Noting(world)
    answer = family.solve(Agent(noting, world), **params)
    moves = [*noting.moves, {"answer": answer}]
    number = sum(shop.tasks.values())
    script = shop.stage.settings.home / f"replies-{family.name}-{number}.json"
    script.write_text(json.dumps({"reply": [{"json": move, "call": at} for at, move in enumerate(moves, start=1)]}))
    learner = LoopLearner(bus=shop.stage.bus, workspace=world.folder, backend="script", backend_options={"file": str(script)})  # fmt: skip
    goal = family.wording(params)
    request = Request(
        id=f"loop-{family.name}-{number}-{time.monotonic_ns()}", goal=goal, params=params, template=template(goal, params),
        signature=shop.signature(family), capabilities=world.capabilities, environment=shop.environment(family),
    )  # fmt: skip
    return _timed(lambda: learner.pursue(request, None))


def _timed(act: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = act()
    return (time.perf_counter() - began) * 1e3, result
