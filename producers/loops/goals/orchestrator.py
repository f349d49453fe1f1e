"""Pursue a goal by its parts: a model splits it, each part is dispatched for itself, a model joins what came of them.

The whole is a durable loop too. Its parts are executions of their own, with this one as their parent, and what they cost is
part of what it costs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morphogen.kernels.sandbox import Capabilities
from morphogen.kernels.sandbox.capabilities import NONE
from morphogen.schemas import Event, Unknown, plain
from morphogen.schemas.executions import ExecutionStarted, ExecutionStep
from morphogen.schemas.knowledge.tools import ParameterSpec, Signature

from ..errors import ToolRefused
from ..tools.toolbox import ToolCall, ToolResult
from ..tracing import DISPATCH
from .acting import shown
from .forms import done_before, join_form, split_form
from .learner import LoopLearner, Program, Pursued, Wanted, functions_for_models

STANDARD = Path(__file__).parent / "orchestrate.mk"
MOST = 8  # parts of one goal


@dataclass(frozen=True, kw_only=True)
class Part:
    """What came of a part: the mode that served it, what it cost (None: nobody knows), the execution that tells how."""

    ok: bool
    mode: str
    output: Any = None
    error: str | None = None
    cost_microusd: int | None = None
    execution: str | None = None


@dataclass(frozen=True, kw_only=True)
class PartAsked:
    """A part to be pursued, of the execution `parent`; what it may cost is what is left of the whole's budget."""

    goal: str
    params: dict[str, Any]
    parent: str
    capabilities: Capabilities
    budget_microusd: int | None = None


Dispatch = Callable[[PartAsked], Part]
"""Serves a part."""


class DispatchPart:
    """Hands one part of a goal to dispatch, with what is left of the budget. That it fails is an answer too."""

    signature = Signature(
        DISPATCH,
        {
            "goal": ParameterSpec("string", required=True, doc="What is wanted, with its values."),
            "params": ParameterSpec("map", doc="Those values by name."),
        },
        returns="map",
        effect="external",
        doc="Pursue a goal in the cheapest way; the result is a map of ok, result, error, mode, cost_microusd, shown.",
    )

    def __init__(self, dispatch: Dispatch | None, execution: str = "", capabilities: Capabilities = NONE) -> None:
        self._dispatch = dispatch
        self._execution = execution
        self._capabilities = capabilities

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return external: nobody knows what a part does."""
        return "external"

    def plan(self, call: ToolCall) -> Any:
        """Return the part."""
        return {"goal": call.arguments["goal"], "params": call.arguments.get("params") or {}}

    def run(self, call: ToolCall) -> ToolResult:
        """Return what came of it. Raises ToolRefused where there is nobody to dispatch to."""
        if self._dispatch is None:
            raise ToolRefused(f"{DISPATCH}: parts are pursued by `morphogen do` only: ask for the goal again")
        goal, params = call.arguments["goal"], dict(call.arguments.get("params") or {})
        asked = PartAsked(
            goal=goal, params=params, parent=self._execution, capabilities=self._capabilities,
            budget_microusd=left([one.event for one in call.context.past("execution")]),
        )  # fmt: skip
        part = self._dispatch(asked)
        said = f"{goal} {shown(params)} -> {shown(part.output)}" if part.ok else f"{goal} failed: {part.error}"
        return ToolResult(
            output={
                "ok": part.ok, "result": plain(part.output), "error": part.error, "mode": part.mode,
                "cost_microusd": part.cost_microusd, "execution": part.execution, "shown": said,
            }
        )  # fmt: skip


class NoDispatch(DispatchPart):
    """The same in a process that only goes on with a loop: it refuses, and the loop ends by saying so."""

    def __init__(self) -> None:
        super().__init__(None)


@dataclass(kw_only=True)
class LoopOrchestrator:
    """Runs the standard orchestration, over the learner whose model, workspace and tools it shares."""

    learner: LoopLearner
    dispatch: Dispatch
    most: int = MOST

    @property
    def cap_microusd(self) -> int | None:
        """The most that a run can cost: 0 where models cost nothing, else None."""
        return self.learner.cap_microusd

    def pursue(self, wanted: Wanted, budget: int | None) -> Pursued:
        """Pursue a goal in parts for at most `budget` micro-dollars together. Raises as `LoopLearner.pursue`."""
        if self.learner.backend is None:
            error = "no model can be asked to split the goal: name a backend"
            return Pursued(ok=False, error=error, cost_microusd=0)
        parameters = {
            "goal": wanted.goal,
            "params": dict(wanted.params),
            **functions_for_models(wanted.capabilities, self.learner.toolbox),
            "split_form": split_form(),
            "join_form": join_form(),
            "most": self.most,
            "course": done_before(wanted.done),
        }
        return self.learner.run_program(
            Program(STANDARD), wanted, parameters, budget, mode="orchestrator",
            extra=lambda execution: {DISPATCH: DispatchPart(self.dispatch, execution, wanted.capabilities)},
        )  # fmt: skip

    def run(self, request: Wanted, budget: int | None) -> Pursued:
        """Pursue a goal in parts, as a dispatcher's `orchestrator`."""
        return self.pursue(request, budget)


def left(recorded: list[Event | Unknown]) -> int | None:
    """Return what an execution may still spend, from its own events; None where it has no bound.

    What nobody knows the cost of counts as all that was left.
    """
    budget = next((one.budget_microusd for one in recorded if isinstance(one, ExecutionStarted)), None)
    if budget is None:
        return None
    steps = [one for one in recorded if isinstance(one, ExecutionStep)]
    unknown = any(one.cost_microusd is None and (one.kind == "llm" or one.name == DISPATCH) for one in steps)
    return 0 if unknown else max(0, budget - sum(one.cost_microusd or 0 for one in steps))
