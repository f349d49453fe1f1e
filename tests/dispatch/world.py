"""A small world for the tests of dispatch: files, an agent that is really run in it, and a log that is a list."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from morphogen.consumers.dispatch import Dispatcher, DispatchState, Request, Result
from morphogen.consumers.executions import At, Step, Trace
from morphogen.kernels.sandbox import Capabilities, value_sha256
from morphogen.schemas import Event
from morphogen.schemas.executions import ExecutionFinished, ExecutionStarted, ExecutionStep
from morphogen.schemas.goals import signature, template

Act = Callable[..., Any]
Agent = Callable[..., Any]


def trace(
    goal: str,
    params: Mapping[str, Any],
    steps: Sequence[tuple[Any, ...]],
    output: Any,
    *,
    name: str = "e0",
    seq: int = 1,
    outcome: str = "success",
) -> Trace:
    """Return an execution. A step is (name, arguments, result) with an effect after it where it is not `read`, or an `llm` one."""
    made = []
    for number, (tool, args, result, *rest) in enumerate(steps):
        effect = rest[0] if rest else "read"
        made.append(
            Step(
                number=number,
                kind="llm" if effect == "llm" else "tool",
                name=tool,
                args=args,
                result=result,
                args_sha256=value_sha256(args),
                result_sha256=value_sha256(result),
                effect="read" if effect == "llm" else effect,
                ok=not (len(rest) > 1 and rest[1] == "failed"),
            )
        )
    return Trace(
        execution=name, goal=goal, template=template(goal, params), signature=signature(goal, params), params=dict(params),
        steps=tuple(made), outcome=outcome, output=output, duration_ns=10**9, cost_microusd=3000, at=At(seq, 0),
    )  # fmt: skip


@dataclass
class Log:
    """What was written, and the state that is told of it."""

    state: DispatchState = field(default_factory=DispatchState)
    events: list[Event] = field(default_factory=list)

    def write(self, event: Event) -> None:
        self.events.append(event)

    def tell(self, event: Event) -> None:
        """Write an event as another process would: the state takes it as the log's."""
        self.events.append(event)
        self.state.seen(event, At(len(self.events), 0))

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class Loop:
    """A runner of any mode that runs an agent, records what it does and costs what it is told to."""

    def __init__(
        self, log: Log, agent: Agent, *, mode: str = "learner", cost: int | None = 3000, cap: int | None = None
    ):
        self.log, self.agent, self.mode, self.cost = log, agent, mode, cost
        self.cap_microusd = cap
        self.runs: list[Request] = []
        self.budgets: list[int | None] = []
        self.guides: list[Trace] = []

    def run(self, request: Request, *rest: Any) -> Result:
        self.budgets.append(rest[-1])
        self.guides += rest[:-1]
        self.runs.append(request)
        began, name = time.monotonic_ns(), f"{self.mode}-{len(self.runs)}-{request.id}"
        self.log.tell(
            ExecutionStarted(
                execution=name,
                goal=request.goal,
                template=request.template,
                signature=request.signature,
                norm_version=1,
                params=request.params,
                mode=self.mode,
                request=request.id,
            )
        )
        count = 0

        def act(tool: str, **args: Any) -> Any:
            nonlocal count
            declared = request.capabilities.functions[tool]
            result = declared.function(**args)
            self.log.tell(
                ExecutionStep(
                    execution=name,
                    number=count,
                    kind="tool",
                    name=tool,
                    args=args,
                    args_sha256=value_sha256(args),
                    result=result,
                    result_sha256=value_sha256(result),
                    effect=declared.effect,
                )
            )
            count += 1
            return result

        output, error = None, None
        try:
            output = self.agent(act, **request.params)
        except Exception as failure:  # noqa: BLE001 - an agent may fail in any way
            error = str(failure)
        self.log.tell(
            ExecutionFinished(
                execution=name,
                outcome="success" if error is None else "failure",
                judged_by="assertion",
                output=output,
                steps=count,
                duration_ns=10**9,
                cost_microusd=self.cost,
                error=error,
            )
        )
        return Result(
            ok=error is None, output=output, error=error, cost_microusd=self.cost, execution=name, steps=count,
            duration_ns=time.monotonic_ns() - began,
        )  # fmt: skip


def dispatcher(log: Log, capabilities: Capabilities, **more: Any) -> Dispatcher:
    return Dispatcher(capabilities=capabilities, state=log.state, write=log.write, **more)


def files(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
