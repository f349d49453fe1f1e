"""What a program hands over: numbers of any kind, and optimizers in wrappers."""

import math
import operator
from typing import Any

from morphogen.consumers.executor.ranks import apart, ranks

from .errors import GrowthError


def number(value: Any) -> float | None:
    """Return a number of any kind, a tensor of one too, as a float; None for what is none."""
    if value is None:
        return None
    try:
        return float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError):
        return None


def whole(value: Any, what: str, *, least: int) -> int:
    """Return a whole number that fits into the log. Raises GrowthError."""
    try:
        found = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = None
    if found is None or not least <= found < 1 << 63:
        raise GrowthError(f"{what} must be a whole number, {least} or more, not {value!r:.100}")
    return found


def learning_rate(optimizer: Any) -> float | None:
    """Return the rate of the first param group, or None where it is no finite number."""
    rate = number(optimizer.param_groups[0].get("lr")) if optimizer.param_groups else None
    return rate if rate is not None and math.isfinite(rate) else None


def stepping(optimizer: Any) -> Any:
    """Return the optimizer that steps, behind wrappers such as Accelerate's."""
    while not hasattr(optimizer, "_optimizer_step_pre_hooks") and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        raise GrowthError(
            f"an optimizer of torch is expected, not a {type(optimizer).__name__}: make it before growth begins, and "
            "of several give the one that is to train what grows"
        )
    return optimizer


def joinable(optimizer: Any) -> Any:
    """Return an optimizer that seeds can join. Raises GrowthError for one that no seed ever can, and among several ranks."""
    from torch.optim import LBFGS

    if (number := ranks()) > 1:
        raise GrowthError(f"{apart(number)}; train with one process, or with policy='none'")
    if isinstance(optimizer, LBFGS):
        raise GrowthError(
            f"{type(optimizer).__name__} keeps one state for all parameters together, so nothing that grows can join it: "
            "train with another optimizer, or with policy='none'"
        )
    return optimizer
