"""What a program hands over: numbers of any kind, and optimizers in wrappers."""

import math
from typing import Any

from .errors import GrowthError


def number(value: Any) -> float | None:
    """Return a number of any kind, a tensor of one too, as a float; None for what is none."""
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def learning_rate(optimizer: Any) -> float | None:
    """Return the rate of the first param group, or None where it is no finite number."""
    rate = number(optimizer.param_groups[0].get("lr")) if optimizer.param_groups else None
    return rate if rate is not None and math.isfinite(rate) else None


def stepping(optimizer: Any) -> Any:
    """Return the optimizer that steps, behind wrappers such as Accelerate's."""
    while not hasattr(optimizer, "_optimizer_step_pre_hooks") and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        raise GrowthError(f"an optimizer of torch is expected, not a {type(optimizer).__name__}")
    return optimizer
