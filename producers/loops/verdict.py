"""Was it a success? Checks are carried out like steps; conditions are expressions over what they gave and the workspace."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from morphogen.schemas import LoopVerdict
from morphogen.schemas.knowledge.errors import EvaluateError
from morphogen.schemas.knowledge.evaluate import Scope, evaluate
from morphogen.schemas.knowledge.tree import Action, Check, Expr
from morphogen.schemas.knowledge.wording import source as written

from .actions import Actions
from .errors import StepFailed, ToolRefused
from .live import Live


def judge(live: Live, actions: Actions, checks: Sequence[Check], success: Sequence[Expr]) -> LoopVerdict:
    """Carry out the checks and hold the conditions; a condition that is unknown does not hold.

    Without conditions, success is that every check passed. Where nothing was really done there is no success to tell.
    """
    values: dict[str, Any] = {}
    passed: dict[str, bool] = {}
    for check in checks:
        values[check.name], passed[check.name] = _check(live, actions, check)
    scope = replace(live.scope, calls={**live.scope.calls, **_conditions(live, values, passed)})
    conditions: list[dict[str, Any]] = []
    for condition in success:
        value, error = _held(condition, scope)
        conditions.append({"condition": written(condition), "value": value, **({"error": error} if error else {})})
    held = all(one["value"] is True for one in conditions) if conditions else all(passed.values())
    return LoopVerdict(
        success=held if live.context.live else None,
        conditions=conditions,
        checks=_checks(values, passed),
        metrics=_metrics(values),
    )


def _check(live: Live, actions: Actions, check: Check) -> tuple[Any, bool]:
    if not isinstance(check.body, Action):
        value, _ = _held(check.body, live.scope)
        return value, value is not None and value is not False
    path = f"evaluation.{check.name}"
    try:
        return actions.perform(check.body, path, check.name, live.scope, check.body.output), True
    except StepFailed:
        outcome = live.journal.state.outcomes.get(path)
        return None if outcome is None else outcome.output, False


def _held(condition: Expr, scope: Scope) -> tuple[Any, str | None]:
    try:
        return evaluate(condition, scope), None
    except (EvaluateError, ToolRefused) as error:
        return None, str(error)


def _conditions(live: Live, values: Mapping[str, Any], passed: Mapping[str, bool]) -> dict[str, Callable[..., Any]]:
    workspace = live.context.workspace

    def file_contains(path: Any, text: Any) -> bool | None:
        if not isinstance(path, str) or not isinstance(text, str):
            return None
        try:
            return text in workspace.read(path).decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return False

    return {
        "file_exists": lambda path: workspace.exists(path) if isinstance(path, str) else None,
        "file_contains": file_contains,
        "metric": lambda name: _number(values.get(name), values.get(name)),
        "passed": passed.get,
    }


def _checks(values: Mapping[str, Any], passed: Mapping[str, bool]) -> dict[str, Any]:
    return {name: {"value": values[name], "passed": passed[name]} for name in values}


def _metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the checks that gave a number, one in a text included, and the numbers in a map under `check/name`."""
    found: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            for inner, one in value.items():
                number = _number(one, None)
                if number is not None:
                    found[f"{name}/{inner}"] = number
            continue
        number = _number(value, None)
        if number is not None:
            found[name] = number
    return found


def _number(value: Any, otherwise: Any) -> Any:
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        try:
            number = float(value.strip())
        except ValueError:
            return otherwise
        return number if not math.isnan(number) else otherwise
    return otherwise
