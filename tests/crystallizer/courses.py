"""Executions for the tests: an agent, written as a function, is run over real functions, and each use becomes a step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from morphogen.consumers.crystallizer.annotations import infer
from morphogen.consumers.crystallizer.source import source_sha256
from morphogen.consumers.executions import At, Step, Trace
from morphogen.kernels.sandbox import Capabilities, value_sha256
from morphogen.schemas import CrystalDrafted
from morphogen.schemas.crystals import Parameter
from morphogen.schemas.goals import signature, template

GOAL = "Do the task of the test"
Agent = Callable[..., Any]
NOON = 1_700_000_000 * 10**9  # 2023-11-14


class Acting:
    """What an agent calls its tools by: `act("files.read_text", path="a")`; each use is kept as a step."""

    def __init__(self, capabilities: Capabilities) -> None:
        self.capabilities = capabilities
        self.steps: list[Step] = []

    def __call__(self, name: str, **args: Any) -> Any:
        declared = self.capabilities.functions[name]
        result, error = None, None
        try:
            result = declared.function(**args)
        except Exception as failure:
            error = f"{name} failed: {type(failure).__name__}: {failure}"
            raise
        finally:
            self.steps.append(
                Step(
                    number=len(self.steps), kind="tool", name=name, args=args, args_sha256=value_sha256(args), result=result,
                    result_sha256=None if error else value_sha256(result), effect=declared.effect, ok=error is None, error=error,
                )
            )  # fmt: skip
        return result


def executed(
    agent: Agent,
    params: Mapping[str, Any],
    capabilities: Capabilities,
    *,
    name: str = "e0",
    goal: str = GOAL,
    environment: Mapping[str, str] | None = None,
    time_ns: int = NOON,
) -> Trace:
    """Return what an agent does with these parameters, as an execution that succeeded."""
    act = Acting(capabilities)
    output = agent(act, **params)
    return Trace(
        execution=name,
        goal=goal,
        template=template(goal),
        signature=signature(goal),
        params=dict(params),
        environment=dict(environment or {"python": "3.11"}),
        steps=tuple(act.steps),
        outcome="success",
        judged_by="assertion",
        output=output,
        output_sha256=value_sha256(output),
        duration_ns=10**6,
        at=At(1, 0, time_ns, stored_ns=time_ns),
    )


def family(
    agent: Agent, many: Sequence[Mapping[str, Any]], capabilities: Capabilities | None = None, **more: Any
) -> list[Trace]:
    """Return one execution for each set of parameters."""
    given = capabilities or Capabilities()
    return [executed(agent, params, given, name=f"e{at}", **more) for at, params in enumerate(many)]


def draft(source: str, traces: Sequence[Trace], capabilities: Sequence[str] = (), **changes: Any) -> CrystalDrafted:
    """Return a text as a draft, its parameters and its answer typed by what was recorded."""
    names = list(dict.fromkeys(name for trace in traces for name in trace.params))
    told: dict[str, Any] = {
        "attempt": "a1",
        "source": source,
        "source_sha256": source_sha256(source),
        "params": [
            Parameter(name=name, type=str(infer(trace.params[name] for trace in traces if name in trace.params)))
            for name in names
        ],
        "returns": str(infer(trace.output for trace in traces)),
        "capabilities": list(capabilities),
    }
    return CrystalDrafted(**{**told, **changes})
