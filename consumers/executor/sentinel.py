"""What stands at `optimizer.step()` while anything grows: ramps go on, and a poisoned step is not taken.

Nothing of it is there while every slot is dormant. What it costs meanwhile is one pass over the gradients, and on an
accelerator one wait for the result.
"""

import logging
import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_log = logging.getLogger("morphogen")


@dataclass(frozen=True)
class Watched:
    """A seed that the sentinel looks at: its slot, its parameters, whether it has a say in the output of the model."""

    slot: str
    params: tuple[nn.Parameter, ...]
    has_say: bool
    tripped: Callable[[], str | None]  # why its output was cut off in the last forward pass, or None


@dataclass(frozen=True)
class Trouble:
    """A step that was not taken, or not for all. `slots` are to blame; none of them is where it cannot be told."""

    error: str  # nonfinite | exploding | shape | exception
    message: str
    slots: tuple[str, ...]
    host: bool  # the gradients of the host were dropped as well
    strikes: int  # steps in a row that were dropped with nobody to blame


class Sentinel:
    """Two hooks of an optimizer. An error in here removes them and is told to `failed`, never to the training loop."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        watched: Sequence[Watched],
        *,
        trouble: Callable[[Trouble], None],
        stepped: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._trouble, self._stepped, self._failed = trouble, stepped, failed
        self._optimizer = weakref.ref(optimizer)
        self._stash: list[tuple[nn.Parameter, Tensor]] = []
        self._norms: list[tuple[list[nn.Parameter], Tensor]] = []
        self._strikes = 0
        self._over = False
        self._skipped = False  # a GradScaler has the optimizer pass over the step that it is in
        self.steps = 0
        """Steps of the optimizer since it stands here."""
        self.watch(watched)
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]

    def watch(self, watched: Sequence[Watched]) -> None:
        """Look at these seeds from now on."""
        optimizer = self._optimizer()
        self._watched = tuple(watched)
        seeds = {id(p) for seed in watched for p in seed.params}
        groups = [] if optimizer is None else optimizer.param_groups
        self._host = tuple(p for group in groups for p in group["params"] if id(p) not in seeds)
        self._all = (*self._host, *(p for seed in watched for p in seed.params))
        self._has_say = any(seed.has_say for seed in watched)

    def close(self) -> None:
        """Take the hooks away; may be called again. Not from inside of one: torch would be going through them."""
        self._over = True
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._norms = []
        self._give_back()

    def grad_norms(self) -> dict[int, float]:
        """Return the norm of each parameter's gradient at the last step, by the parameter's id."""
        return {
            id(p): norm
            for params, norms in self._norms
            for p, norm in zip(params, norms.tolist(), strict=True)
            if math.isfinite(norm)
        }

    def _before(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._over:
            return
        try:
            self._skipped = _skipped(optimizer)
            if self._skipped:
                return
            tripped = [(seed, reason) for seed in self._watched if (reason := seed.tripped())]
            self._norms = norms(self._all, _scale(optimizer))
            if tripped or not self._sound():
                self._drop(tripped)
            else:
                self._strikes = 0
        except Exception as error:  # noqa: BLE001  never into training
            self._end(error)

    def _after(self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._give_back()
            if self._over or self._skipped:
                return
            self.steps += 1
            self._stepped()
        except Exception as error:  # noqa: BLE001
            self._end(error)

    def _end(self, error: Exception) -> None:
        self._over = True  # the hooks themselves go with `close`
        try:
            self._failed(error)
        except Exception as second:  # noqa: BLE001  never into training
            _log.warning("growth: the guard of the optimizer's steps is off: %s: %s", type(second).__name__, second)

    def _sound(self) -> bool:
        """Return whether all gradients are finite; a norm that is not may still be of finite numbers that overflow."""
        return all(bool(torch.isfinite(norms).all()) for _, norms in self._norms) or finite(self._all)

    def _drop(self, tripped: list[tuple[Watched, str]]) -> None:
        """Take away the gradients that must not be followed, and say who is to blame."""
        host_bad = not finite(self._host)
        blamed = [seed for seed, _ in tripped]
        if not host_bad:
            blamed += [seed for seed in self._watched if seed not in blamed and not finite(seed.params)]
        whole = self._has_say and (host_bad or any(seed.has_say for seed in blamed))
        if whole:
            self._take_away(self._all)
        else:  # the host is none of our business: no seed has a say in it
            self._take_away([p for seed in (self._watched if host_bad else blamed) for p in seed.params])
        self._strikes = 0 if blamed else self._strikes + 1
        if not blamed and not whole:
            return
        reason = tripped[0][1] if tripped else ""
        self._trouble(
            Trouble(
                error=error_of(reason) if reason else "nonfinite",
                message=reason or ("gradients of a seed are not finite" if blamed else "gradients are not finite"),
                slots=tuple(seed.slot for seed in blamed),
                host=whole,
                strikes=self._strikes,
            )
        )

    def _take_away(self, params: Iterable[nn.Parameter]) -> None:
        """Hide gradients from the optimizer: it passes over a parameter that has none, momentum and decay included."""
        for p in params:
            if p.grad is not None:
                self._stash.append((p, p.grad))
                p.grad = None

    def _give_back(self) -> None:
        """Put zeros where gradients were: the program may look at them after the step."""
        stash, self._stash = self._stash, []
        for p, grad in stash:
            if p.grad is None:
                p.grad = grad.detach().zero_()


def error_of(reason: str) -> str:
    """Return what the log calls the reason for which a seed's output was cut off."""
    kind = reason.partition(":")[0]
    return kind if kind in {"nonfinite", "exploding", "shape", "exception"} else "exception"


def _skipped(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether a GradScaler found gradients that overflowed, and left it to a fused optimizer to pass over the step."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def _scale(optimizer: torch.optim.Optimizer) -> float:
    """Return the factor that a GradScaler left in the gradients, for a fused optimizer to take out."""
    scale = getattr(optimizer, "grad_scale", None)
    return 1.0 if scale is None else float(scale)


def norms(params: Iterable[nn.Parameter], scale: float = 1.0) -> list[tuple[list[nn.Parameter], Tensor]]:
    """Return the norms of the gradients there are over `scale`, one tensor for each device and type."""
    by_place: dict[tuple[torch.device, torch.dtype], tuple[list[nn.Parameter], list[Tensor]]] = {}
    for p in params:
        values = _values(p)
        if values is not None:
            owners, grads = by_place.setdefault((values.device, values.dtype), ([], []))
            owners.append(p)
            grads.append(values)
    found = [(owners, torch.stack(list(torch._foreach_norm(grads)))) for owners, grads in by_place.values()]
    return found if scale == 1.0 else [(owners, values / scale) for owners, values in found]


def finite(params: Iterable[nn.Parameter]) -> bool:
    """Return whether every gradient there is holds finite numbers only."""
    found = [values for p in params if (values := _values(p)) is not None]
    return all(bool(torch.isfinite(values).all()) for values in found)


def _values(p: nn.Parameter) -> Tensor | None:
    grad = p.grad
    if grad is None:
        return None
    grad = grad.detach()
    return grad.coalesce().values() if grad.is_sparse else grad
