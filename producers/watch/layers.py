"""Which modules of a model are layers, what they are called, and which of them have units that can die."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from morphogen.schemas import sound

Rows = Callable[[Any], Any]

#: Names that wrappers put in front of, or between, the names that the user gave.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


@dataclass(frozen=True, slots=True)
class Layer:
    """One module that owns parameters directly. Holds its parameters, never the module."""

    name: str
    module: "weakref.ref[nn.Module]"
    own: dict[str, nn.Parameter | None]  # the module's own table: a parameter put there later is seen
    units: int | None  # output units that can be called dead, None where the notion has no meaning

    def parameters(self) -> list[nn.Parameter]:
        """Return the floating point (or complex) parameters that hold data."""
        return [
            p
            for p in self.own.values()
            if p is not None and not isinstance(p, UninitializedParameter) and (p.is_floating_point() or p.is_complex())
        ]

    def numel(self) -> int:
        """Count the numbers in its parameters: where there are none, there is nothing to measure."""
        return sum(p.numel() for p in self.parameters())


def find_layers(model: nn.Module) -> list[Layer]:
    """List the layers in the order of `model.named_modules()`; a shared module appears once, and a name too."""
    wrapped = _wrapper_paths(model)
    names: set[str] = set()
    layers = []
    for path, module in model.named_modules():
        own = module._parameters
        if isinstance(module, torch.jit.ScriptModule):
            own = dict(module.named_parameters(recurse=False))
        if any(p is not None for p in own.values()):
            name = _unlike(names, sound(_clean(path, wrapped)) or "(root)")
            names.add(name)
            layers.append(Layer(name, weakref.ref(module), own, _units(module)))
    return layers


def _wrapper_paths(model: nn.Module) -> set[str]:
    """Find the paths that exist only because a wrapper (DDP, FSDP, torch.compile) holds the user's module."""
    paths = set()
    for path, module in model.named_modules():
        for child in _WRAPPERS.intersection(module._modules.keys()):
            if child != "module" or isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
                paths.add(f"{path}.{child}" if path else child)
    return paths


def _clean(path: str, wrapped: set[str]) -> str:
    if not wrapped or not path:
        return path
    parts = path.split(".")
    return ".".join(p for i, p in enumerate(parts) if ".".join(parts[: i + 1]) not in wrapped)


def _unlike(names: set[str], name: str) -> str:
    """Return `name`, or where it is taken the first of `name~2`, `name~3`, ... that is not."""
    others = (f"{name}~{number}" for number in count(2))
    return name if name not in names else next(other for other in others if other not in names)


def _units(module: nn.Module) -> int | None:
    if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
        return None
    if isinstance(module, nn.Linear | nn.Bilinear):
        return module.out_features
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.out_channels
    return None


def rows_by_unit(module: nn.Module) -> Rows:
    """Return the function that lays a weight gradient (array or tensor) out as one row per output unit."""
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        groups, units = module.groups, module.out_channels

        def transposed(weight: Any) -> Any:
            by_group = weight.reshape(groups, weight.shape[0] // groups, units // groups, -1)
            return by_group.swapaxes(1, 2).reshape(units, -1)

        return transposed
    return lambda weight: weight.reshape(weight.shape[0], -1)


def first_tensor(output: object) -> Tensor | None:
    """Return the first tensor of a module's output: itself, or found in a tuple, list or mapping."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        for item in output:
            found = first_tensor(item)
            if found is not None:
                return found
    return None


def values_of(tensor: Tensor) -> Tensor | None:
    """Return the floating-point values of a dense output, of a sharded one those of this rank; None where it holds none.

    Fake tensors, wrappers and what stands for many tensors (nested ones, those inside of torch.func) have no memory of
    their own to read.
    """
    if tensor.layout != torch.strided or tensor.is_nested or not tensor.is_floating_point():
        return None
    if hasattr(tensor, "to_local"):
        sharded: Any = tensor.detach()
        tensor = sharded.to_local()
    try:
        if type(tensor) not in (Tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            if storage.device != tensor.device or storage.data_ptr() == 0:
                return None
            tensor = tensor.as_subclass(Tensor)
        tensor.data_ptr()
    except RuntimeError:
        return None
    return tensor.detach()
