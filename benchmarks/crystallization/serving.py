"""Requests served as a program would have them served: one dispatcher for each world, one past for all of them."""

import random
import time
from dataclasses import dataclass
from typing import Any

from agent import Agent, TaskFamily
from stage import Stage

from morphogen.consumers.dispatch import Request, Result
from morphogen.producers.executions import execution


@dataclass
class ScriptedLearner:
    """LEARNER: the scripted agent, recorded. `noise` is drawn anew for each request; `asked` counts what it was asked."""

    stage: Stage
    family: TaskFamily
    untidy: bool = True
    asked: int = 0

    @property
    def cap_microusd(self) -> int | None:
        """No run of the scripted agent costs more than this at the configured prices."""
        return 100_000

    def run(self, request: Request, budget: int | None) -> Result:
        """Do the task and record it; what it raises is a failure."""
        self.asked += 1
        began = time.perf_counter_ns()
        world = self.stage.world(self.family)
        noise = random.Random(request.id) if self.untidy else None
        with execution(
            request.goal,
            params=request.params,
            environment=request.environment,
            capabilities=request.capabilities,
            settings=self.stage.settings,
            request=request.id,
        ) as steps:
            agent = Agent(steps, world, noise, self.family.strays)
            output: Any = self.family.solve(agent, **request.params)
            steps.finish(output, judged_by="assertion")
        finished = steps.finished
        assert finished is not None
        return Result(
            ok=True,
            output=output,
            cost_microusd=finished.cost_microusd,
            duration_ns=time.perf_counter_ns() - began,
            execution=steps.id,
            steps=steps.steps,
        )
