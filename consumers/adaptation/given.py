"""What a program hands over: numbers of any kind, and optimizers in wrappers."""

import math
import operator
from typing import Any

from morphogen.consumers.executor.ranks import apart, ranks
from morphogen.schemas import plain, sound

from .errors import GrowthError

_LONGEST = 1000  # characters


def number(value: Any) -> float | None:
    """Return a number of any kind, a tensor of one too, as a float; None for what is none."""
    try:
        return None if value is None else float(value.detach() if hasattr(value, "detach") else value)
    except Exception:  # noqa: BLE001  anybody's number, and the training loop must not die of it
        return None


def whole(value: Any, what: str, *, least: int) -> int:
    """Return a whole number that fits into the log. Raises GrowthError."""
    try:
        found = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = None
    if found is None or not least <= found < 1 << 63:
        raise GrowthError(f"{what} must be a whole number, {least} or more, not {plain(value)!r:.100}")
    return found


def text(value: Any, what: str) -> str | None:
    """Return a text that the log can hold, or None for none. Raises GrowthError."""
    if value is None:
        return None
    if isinstance(value, str) and len(value) <= _LONGEST and (told := sound(value)) == value:
        return told  # of a text of numpy's too
    raise GrowthError(f"{what} is text, of {_LONGEST:,} characters at most, not {plain(value)!r:.100}")


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


def joinable(optimizer: Any) -> None:
    """Refuse an optimizer that no seed ever can join, and growth among several ranks. Raises GrowthError."""
    from torch.optim import LBFGS

    if (number := ranks()) > 1:
        raise GrowthError(f"{apart(number)}; train with one process, or with policy='none'")
    if isinstance(optimizer, LBFGS):
        raise GrowthError(
            f"{type(optimizer).__name__} keeps one state for all parameters together, so nothing that grows can join it: "
            "train with another optimizer, or with policy='none'"
        )


def strange(optimizer: Any, model: Any) -> bool:
    """Whether a model has parameters to train and an optimizer holds others: of another model, or copies of them."""
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return bool(trained and held) and trained.isdisjoint(held)
