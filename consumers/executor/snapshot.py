"""The last good state of a model and its optimizer, and the way back to it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Snapshot:
    """Copies of the parameters and buffers of a model and of the optimizer's state of each parameter.

    Held by tensor, not by name: what has grown or gone since is left alone by `restore`. Learning rates and all
    that schedulers keep are not part of it. Costs as much memory as the model and its optimizer state.
    """

    step: int
    tensors: tuple[tuple[Tensor, Tensor], ...]  # the live one, its copy
    states: tuple[tuple[Tensor, dict[str, Any]], ...]

    @classmethod
    def take(cls, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> "Snapshot | None":
        """Copy the state now; None where it is not good: a parameter or a buffer is not finite."""
        with torch.no_grad():
            live = [tensor for tensor in _tensors(model) if not tensor.is_meta]
            if not all_finite(live):
                return None
            tensors = tuple((tensor, tensor.detach().clone()) for tensor in live)
            states = tuple((p, _copied(state)) for p, state in optimizer.state.items() if isinstance(p, Tensor))
        return cls(step, tensors, states)

    def restore(self, optimizer: torch.optim.Optimizer) -> bool:
        """Go back to it, in place; return whether every tensor was then seen to hold what it held."""
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        saved = {id(p) for p, _ in self.states}
        with torch.no_grad():
            for tensor, copy in self.tensors:
                tensor.copy_(copy)
            for p, state in self.states:
                if id(p) in held:
                    _put_back(optimizer, p, state)
            for p, _ in self.tensors:  # had no state then: it begins anew
                if id(p) in held and id(p) not in saved:
                    optimizer.state.pop(p, None)
            return all(torch.equal(tensor, copy) for tensor, copy in self.tensors)


def all_finite(tensors: list[Tensor]) -> bool:
    """Return whether no floating point tensor of these holds a NaN or an infinity; waits once for each device."""
    flags: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        if (tensor.is_floating_point() or tensor.is_complex()) and tensor.numel():
            flags.setdefault(tensor.device, []).append(torch.isfinite(tensor).all())
    return all(bool(torch.stack(found).all()) for found in flags.values())


def _tensors(model: nn.Module) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        if not isinstance(tensor, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer):
            found.setdefault(id(tensor), tensor)
    return list(found.values())


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.detach().clone() if isinstance(value, Tensor) else value for name, value in state.items()}


def _put_back(optimizer: torch.optim.Optimizer, p: Tensor, saved: dict[str, Any]) -> None:
    """Put a parameter's state back, into the same tensors where they are there still."""
    state = optimizer.state[p]
    for name in [name for name in state if name not in saved]:
        del state[name]
    for name, value in saved.items():
        now = state.get(name)
        if isinstance(value, Tensor) and isinstance(now, Tensor) and now.shape == value.shape:
            now.copy_(value)
        else:
            state[name] = value.detach().clone() if isinstance(value, Tensor) else value
