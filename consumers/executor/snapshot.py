"""The last good state of a model and its optimizer, and the way back to it."""

from collections.abc import Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from morphogen.kernels.slots.graft import Graft
from morphogen.kernels.slots.numbers import parts, same


@dataclass(frozen=True)
class Snapshot:
    """Copies of the parameters and buffers of a model and of the optimizer's state of each parameter.

    Held by tensor, not by name: what has grown or gone since is left alone by `restore`. Learning rates and all
    that schedulers keep are not part of it, nor are the alphas of seeds, which go by ramps of their own. Costs as much
    memory as the model and its optimizer state.
    """

    step: int
    tensors: tuple[tuple[Tensor, Tensor], ...]  # the live one, its copy
    states: tuple[tuple[Tensor, dict[str, Any]], ...]

    @classmethod
    def take(
        cls, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, *, unbounded: Set[str] = frozenset()
    ) -> "Snapshot | None":
        """Copy the state now; None where it is not good: a parameter or a buffer that is not `unbounded` is not finite."""
        with torch.no_grad():
            live = {name: tensor for name, tensor in _tensors(model).items() if not tensor.is_meta}
            if not all_finite([tensor for name, tensor in live.items() if name not in unbounded]):
                return None
            tensors = tuple((tensor, tensor.detach().clone()) for tensor in live.values())
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
            return all(same(tensor, copy) is not False for tensor, copy in self.tensors)


def unbounded(model: nn.Module) -> frozenset[str]:
    """Return the names of what a model holds infinities in and does not train, such as the mask of an attention."""
    fixed = {name: tensor for name, tensor in _tensors(model).items() if not (tensor.requires_grad or tensor.is_meta)}
    return frozenset(
        name
        for name, tensor in fixed.items()
        if not all_finite([tensor]) and not any(bool(part.isnan().any()) for part in parts(tensor) or ())
    )


def all_finite(tensors: list[Tensor]) -> bool:
    """Return whether no floating point tensor of these holds a NaN or an infinity; waits once for each device."""
    flags: dict[torch.device, list[Tensor]] = {}
    for part in (part for tensor in tensors for part in parts(tensor) or ()):
        if (part.is_floating_point() or part.is_complex()) and part.numel():
            flags.setdefault(part.device, []).append(torch.isfinite(part).all())
    return all(bool(torch.stack(found).all()) for found in flags.values())


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    named = (*model.named_parameters(), *model.named_buffers())
    lazy = nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer
    alphas = {id(b) for graft in model.modules() if isinstance(graft, Graft) for b in graft.buffers(recurse=False)}
    return {name: tensor for name, tensor in named if not isinstance(tensor, lazy) and id(tensor) not in alphas}


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
