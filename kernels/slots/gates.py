"""Gates between the stages: pure questions to what was measured. What was not measured is None, and never passes."""

from collections.abc import Callable
from typing import Literal

import msgspec

from .errors import SlotError
from .lifecycle import Stage

Gate = Literal["G1", "G2", "G3", "G5"]
"""G1 germinated -> training, G2 training -> blending, G3 blending -> holding, G5 holding -> fossilized."""

GATE_OF: dict[tuple[Stage, Stage], Gate] = {
    (Stage.GERMINATED, Stage.TRAINING): "G1",
    (Stage.TRAINING, Stage.BLENDING): "G2",
    (Stage.BLENDING, Stage.HOLDING): "G3",
    (Stage.HOLDING, Stage.FOSSILIZED): "G5",
}
"""The gate of a step, for the steps that have one."""


class Measurements(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a seed when a gate is asked. None is *not measured*."""

    params: int | None = None
    epochs_in_stage: int | None = None
    alpha: float | None = None
    alpha_target: float | None = None
    grad_norm: float | None = None
    grad_ratio: float | None = None
    nonfinite: float | None = None
    tripped: bool | None = None
    improvement: float | None = None  # how much the loss of the host fell while the seed trained; above 0: it fell
    contribution: float | None = None  # loss without the seed minus loss with it, on the same batches
    accuracy_gain: float | None = None


class GateConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the gates ask for."""

    min_training_epochs: int = 1
    min_blending_epochs: int = 0
    min_holding_epochs: int = 1
    max_grad_norm: float = 1e3
    min_grad_norm: float = 0.0  # a seed must have had a gradient above this one
    min_contribution: float = 0.0  # in loss; a seed must be above it


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate said, check by check."""

    gate: str
    passed: bool
    checks_passed: tuple[str, ...]
    checks_failed: tuple[str, ...]


def evaluate(gate: str, measured: Measurements, config: GateConfig | None = None) -> GateResult:
    """Ask `gate` (see `Gate`): it passes when every one of its checks does. Pure."""
    try:
        checks = _CHECKS[gate]
    except KeyError:
        raise SlotError(f"{gate!r} is no gate; the gates are {', '.join(_CHECKS)}") from None
    config = config or GateConfig()
    passed: list[str] = []
    failed: list[str] = []
    for name, check in checks.items():
        (passed if check(measured, config) else failed).append(name)
    return GateResult(gate=gate, passed=not failed, checks_passed=tuple(passed), checks_failed=tuple(failed))


evaluate_gate = evaluate


def _above(value: float | None, bound: float) -> bool:
    return value is not None and value > bound


def _at_least(value: float | None, bound: float) -> bool:
    return value is not None and value >= bound


def _at_most(value: float | None, bound: float) -> bool:
    return value is not None and value <= bound


_Check = Callable[[Measurements, GateConfig], bool]

_SOUND: dict[str, _Check] = {
    "not_tripped": lambda m, _: m.tripped is False,
    "finite": lambda m, _: m.nonfinite == 0,
}

_CHECKS: dict[str, dict[str, _Check]] = {
    "G1": {
        "has_parameters": lambda m, _: _at_least(m.params, 0),
        "not_tripped": _SOUND["not_tripped"],
    },
    "G2": {
        "epochs_in_training": lambda m, c: _at_least(m.epochs_in_stage, c.min_training_epochs),
        "gradient_arrives": lambda m, c: _above(m.grad_norm, c.min_grad_norm),
        "gradient_not_exploding": lambda m, c: _at_most(m.grad_norm, c.max_grad_norm),
        **_SOUND,
    },
    "G3": {
        "epochs_in_blending": lambda m, c: _at_least(m.epochs_in_stage, c.min_blending_epochs),
        "alpha_reached": lambda m, _: m.alpha is not None and m.alpha == m.alpha_target,
        **_SOUND,
    },
    "G5": {
        "epochs_in_holding": lambda m, c: _at_least(m.epochs_in_stage, c.min_holding_epochs),
        "contributes": lambda m, c: _above(m.contribution, c.min_contribution),
        **_SOUND,
    },
}
