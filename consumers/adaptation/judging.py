"""What comes of decisions: told to the log when a seed is judged, and to the policy, which may learn of it."""

from collections.abc import Callable
from typing import Any

from morphogen.consumers.executor import Executor, Seedling
from morphogen.consumers.policy import Policy
from morphogen.schemas import Event

from .outcomes import Outcomes

Say = Callable[[Event, str | None], object]


class Judging:
    """The open decisions of one growth and what became of them."""

    def __init__(self, policy: Policy, name: str, say: Say) -> None:
        self.outcomes = Outcomes()
        self._policy, self._name, self._say = policy, name, say

    def judge(self, executor: Executor) -> None:
        """Tell what came of the decisions about every seed that was judged since the last call."""
        for seedling in executor.judged():
            self._tell(executor, seedling, final=seedling.stage != "fossilized")

    def last(self, executor: Executor) -> None:
        """Tell what came of all that is still open."""
        self.judge(executor)
        for seedling in list(executor.standing.values()):
            self._tell(executor, seedling, final=True)

    def _tell(self, executor: Executor, seedling: Seedling, *, final: bool) -> None:
        for told in self.outcomes.judged(seedling, executor.epoch, final=final):
            self._say(told.event, told.cause)
            self._learn(executor, told.outcome)

    def _learn(self, executor: Executor, outcome: Any) -> None:
        try:
            self._policy.learn(outcome)
        except (Exception, SystemExit) as error:  # noqa: BLE001  anybody's policy
            executor.failed(error, f"policy {self._name} did not learn")
