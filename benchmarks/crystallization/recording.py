"""A family's past: the scripted agent does its task again and again, and the recorder writes down how."""

import random
from typing import Any

from agent import Agent, TaskFamily
from stage import Stage

from morphogen.producers.executions import execution

RECORDED = 32  # executions of a family, one of which fails: 97% of success, above the 95% that a candidate needs
FAILING = 13


def record(stage: Stage, family: TaskFamily, count: int = RECORDED) -> None:
    """Record `count` executions of a family with noise; every thirty-second fails, by a wrong answer or an exception."""
    world = stage.world(family)
    for number in range(count):
        # A seed by name, so that families do not follow each other's dice.
        dice = random.Random(f"{family.name} {number}")
        failing = number % RECORDED == FAILING
        perform(stage, family, family.prepare(world, dice, number), dice, failing=failing)


def perform(
    stage: Stage, family: TaskFamily, params: dict[str, Any], noise: random.Random | None, *, failing: bool = False
) -> Any:
    """Do one task and record it; return the answer. A failing one gives a wrong answer or gives up, as the dice say."""
    world = stage.world(family)
    gives_up = failing and noise is not None and noise.random() < 0.5
    answer: Any = None
    try:
        with execution(
            family.wording(params),
            params=params,
            environment=family.environment,
            capabilities=world.capabilities,
            settings=stage.settings,
        ) as steps:
            agent = Agent(steps, world, noise, family.strays, gives_up=gives_up)
            answer = family.solve(agent, **params)
            if failing:
                steps.finish(_wrong(answer), outcome="failure", judged_by="assertion")
            else:
                steps.finish(answer, outcome="success", judged_by="assertion")
    except FileNotFoundError:
        if not gives_up:
            raise
    return answer


def _wrong(answer: Any) -> Any:
    """Return an answer that is not the right one."""
    if isinstance(answer, dict):
        return dict.fromkeys(answer)
    return f"not {answer}"
