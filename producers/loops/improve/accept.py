"""When a change may be made without a person: a condition over the figures of its back-test.

saved_seconds > 0 && verdict_same && judged >= 10
"""

from collections.abc import Mapping
from typing import Any

from morphogen.schemas.knowledge.errors import EvaluateError
from morphogen.schemas.knowledge.evaluate import Scope, evaluate
from morphogen.schemas.knowledge.parse import parse
from morphogen.schemas.knowledge.tree import Expr

from .errors import ImproveError
from .names import read_names


def read_policy(condition: str, known: Mapping[str, Any]) -> Expr:
    """Return the condition as an expression. Raises ImproveError where it is none, or names what there is not."""
    parsed = parse(f"task policy {{ success: {condition}\n}}", "--accept-if")
    errors = [one for one in parsed.diagnostics if one.severity == "error"]
    tasks = parsed.module.tasks
    if errors or len(tasks) != 1 or len(tasks[0].success) != 1 or tasks[0].steps or tasks[0].evaluation:
        why = f": {errors[0].message}" if errors else ""
        raise ImproveError(f"--accept-if takes one condition, such as 'saved_seconds > 0 && verdict_same'{why}")
    expr = tasks[0].success[0]
    unknown = sorted(read_names(expr) - set(known))
    if unknown:
        raise ImproveError(f"--accept-if: there is no {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return expr


def accepts(policy: Expr, figures: Mapping[str, Any]) -> bool:
    """Tell whether the condition is exactly true; unknown is not."""
    try:
        return evaluate(policy, Scope(names=figures)) is True
    except EvaluateError as error:
        raise ImproveError(f"--accept-if: {error}") from error
