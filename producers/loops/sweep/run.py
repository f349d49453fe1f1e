"""An engineering loop as a step of a program: the sweep bound to a run's log, workspace and tools."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.schemas import Event, SweepFinished, SweepStarted, TrialFinished
from morphogen.schemas.knowledge.tree import EngineeringLoop

from .engine import started, sweep
from .meters import meter_for
from .plan import Plan, plan_of
from .shell import Shell, SweepResult
from .standing import Standing

if TYPE_CHECKING:
    from ..context import LoopContext

FAMILY = "sweep"


def run_sweep(
    loop: EngineeringLoop,
    context: "LoopContext",
    *,
    parameters: Mapping[str, Any] | None = None,
    budget: int | None = None,
) -> SweepResult:
    """Carry out an engineering loop, or what this run has not yet measured of it, and return how it ended.

    `parameters` replace spaces of the loop by lists of values, `budget` its own. In a run that is not live nothing is
    measured: the plan is recorded, and the result has no best. Raises SpaceError, MeasureError, NothingGood, and what the
    log raises.
    """
    program = context.program
    scope = program.scope(context.variables, system=program.system_of(loop))
    rules = [info.rule for info in program.rules.values()]
    plan = plan_of(loop, program.module, scope=scope, parameters=parameters, budget=budget, rules=rules)
    plan = plan.named(_name(plan.name, context))
    past = [one.event for one in context.past(FAMILY) if one.path == context.place.path]
    own = [one for one in past if isinstance(one, Event)]
    if not context.live:
        return _planned(plan, context, own)
    folder = Path(program.path).absolute().parent
    return sweep(
        plan,
        Shell(
            record=context.record,
            item=lambda case, values, origin, source: context.item(case, values, origin=origin, source=source),
            meter=lambda check: meter_for(plan, context, folder if folder.is_dir() else None, check),
            also=lambda trial: _echoes(plan, trial, context),
            past=own,
            check=context.check,
            progress=context.progress,
            host=socket.gethostname(),
        ),
    )


def _name(name: str, context: "LoopContext") -> str:
    """Return the sweep's name in the log: the loop's, and where the run sweeps it in several steps, the step's too."""
    for one in context.past(FAMILY):
        if isinstance(one.event, SweepStarted) and one.event.sweep == name:
            return name if one.path == context.place.path else f"{name}@{context.place.path}"
    return name


def _echoes(plan: Plan, trial: TrialFinished, context: "LoopContext") -> list[Event]:
    """Return an item of every case whose fields are all parameters or the metric: lifted facts look at those."""
    values = {**trial.config, plan.field: trial.value}
    names = {axis.name for axis in plan.space.axes}
    return [
        context.item(info.name, {field: values[field] for field in info.fields}, source=f"{plan.name}#{trial.number}")
        for info in context.program.cases.values()
        if info.case.name not in plan.cases and names & set(info.fields) and set(info.fields) <= set(values)
    ]


def _planned(plan: Plan, context: "LoopContext", past: list[Event]) -> SweepResult:
    """Record what would be measured, and that nothing was."""
    finished = SweepFinished(
        sweep=plan.name, reason="planned", trials=0, measured=0, failed=0, rejected=0, pruned=0, excluded=0
    )
    if not any(isinstance(one, SweepFinished) for one in past):
        context.record(started(plan), finished)
    return SweepResult(plan, finished, Standing(plan.name, plan.maximize))
