"""Mixed requests: what they cost with dispatch, and what they cost when the learner serves each of them.

Both get the same requests. Every request of an honest family is equally likely; a few are goals that nobody has had before.
The learner's cost is that of the configured prices; a success is the agent's own answer with the agent's own files left.
"""

import random
import shutil
from collections import Counter
from dataclasses import replace
from typing import Any

from agent import Agent, Bare, TaskFamily
from recording import perform
from shop import Shop

from morphogen.kernels.sandbox import value_sha256
from morphogen.producers.executions import read_prices, settled

NEW = 0.03  # part of goals that were never asked for
ONCE = ("in one line", "for the minutes", "as I said on Monday", "once more, please", "for Ada", "and be quick")


class Costed(Bare):
    """Uses the tools, records nothing, and adds up what the model would have cost."""

    def __init__(self, world: Any, prices: Any) -> None:
        super().__init__(world)
        self._prices = prices
        self.microusd = 0

    def asked(self, *, model: str = "", tokens_in: int = 0, tokens_out: int = 0, **_: Any) -> None:
        """Add the price of a question."""
        cost, _source = self._prices.cost(model, tokens_in, tokens_out)
        self.microusd += cost or 0


def mixed(shop: Shop, families: list[TaskFamily], count: int, seed: int = 6) -> dict[str, Any]:
    """Serve `count` requests; return cost, modes and success beside always-LEARNER's."""
    dice = random.Random(seed)
    prices = read_prices(shop.stage.settings.home)
    modes: Counter[str] = Counter()
    cost = learner = right = wrong = failed = unknown = fell_back = 0
    by_family: dict[str, Counter[str]] = {}
    examples: list[str] = []
    for number in range(count):
        family = dice.choice(families)
        new = dice.random() < NEW
        asked = replace(family, goal=f"{family.goal} ({dice.choice(ONCE)}, request {number})") if new else family
        params = shop.task(family)
        world = shop.stage.world(family)
        folder = shop.stage.settings.home / "twins" / f"mixed-{number}"
        folder.parent.mkdir(exist_ok=True)
        twin = world.twin(folder)
        posted = world.site.posted
        before = len(posted)
        always = Costed(twin, prices)
        truth = family.solve(Agent(always, twin), **params)
        said, after = posted[before:], len(posted)
        learner += always.microusd
        done = shop.do(asked, params)
        modes[done.mode] += 1
        by_family.setdefault("new goals" if new else family.name, Counter())[done.mode] += 1
        fell_back += bool(done.fell_back)
        cost += done.cost_microusd or 0
        unknown += done.cost_microusd is None
        same = value_sha256(settled(done.output)) == value_sha256(settled(truth))
        if not done.ok:
            failed += 1
            examples.append(f"{family.name}: {done.error}"[:300])
        elif same and world.files() == twin.files() and posted[after:] == said:
            right += 1
        else:
            wrong += 1
            examples.append(f"{family.name} by {done.mode}: {done.output!r} for {truth!r}"[:300])
        shutil.rmtree(folder)
    return {
        "requests": count,
        "new_goals": NEW,
        "modes": dict(modes),
        "fell_back": fell_back,
        "right": right,
        "wrong": wrong,
        "failed": failed,
        "cost_microusd": cost,
        "cost_unknown": unknown,
        "always_learner_microusd": learner,
        "share": cost / learner if learner else None,
        "by_family": {name: dict(each) for name, each in sorted(by_family.items())},
        "examples": examples[:5],
    }


def learners_success(shop: Shop, families: list[TaskFamily], count: int, seed: int = 6) -> float:
    """Return the share of requests that the learner alone serves rightly: the noise does not spoil its answers."""
    dice = random.Random(seed)
    good = 0
    for number in range(count):
        family = dice.choice(families)
        params = shop.task(family)
        twin = shop.stage.world(family).twin(shop.stage.settings.home / "twins" / f"learner-{number}")
        truth = family.right(twin, params)
        answer = perform(shop.stage, family, params, random.Random(number))
        good += value_sha256(settled(answer)) == value_sha256(settled(truth))
        shutil.rmtree(twin.folder)
    return good / count
