"""A plain copy of a grown model: torch's modules and the user's, and nothing of ours.

What is linear beside something linear is folded into its weights; the rest stays a branch: see `branching`.
"""

import copy
from collections.abc import Container

import torch
from torch import Tensor, fx, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from morphogen.schemas import line_of

from . import fastpaths
from .branching import branch, holder
from .copying import bare, copied
from .errors import SlotError
from .folding import fold
from .graft import Graft
from .host import detach, grafts
from .recording import arguments, tensors
from .undisturbed import undisturbed


def fuse(model: nn.Module, example: object = None) -> nn.Module:
    """Give a copy of `model` that needs no Morphogen: to run, to save whole, to export.

    Seeds that are blended in stay; seeds that are not, or were cut off, are left out. A linear seed beside an nn.Linear,
    and a convolution beside an nn.Conv2d whose taps hold its own, become part of the weight: equal up to rounding. All
    others are exact, and go on training.

    A model that uses such a weight also by itself (`F.linear(h, encoder.weight.t())`) would become another one, which
    its modules do not tell: give an `example` then, an input as `adapt` takes it. Copy and model are run on it in eval
    mode, and what makes them differ is not folded. A model that `torch.compile` or DistributedDataParallel has wrapped
    comes out without the wrapper. Raises SlotError for a seed of a class of ours that cannot be traced, and for an
    example that the model does not run on.
    """
    model = _inner(model)
    hosts = [name for name, module in model.named_modules() if grafts(module) is not None]
    plain = _fused(model, hosts)
    if example is None or not hosts:
        return plain
    expected = _outputs(copied(model), example)
    if _agree(expected, _outputs(plain, example)):
        return plain
    sound = [name for name in hosts if _agree(expected, _outputs(_fused(model, [name]), example))]
    return _fused(model, sound)


def _inner(model: nn.Module) -> nn.Module:
    wrapped = model.module if isinstance(model, DistributedDataParallel | DataParallel) else None
    wrapped = getattr(model, "_orig_mod", wrapped)
    return _inner(wrapped) if isinstance(wrapped, nn.Module) else model


def _fused(model: nn.Module, folded: Container[str]) -> nn.Module:
    """Fuse, and fold only into the hosts of these names."""
    plain = bare(model)
    fastpaths.reopen(plain)
    owners = _owners(plain)
    grown = [(name, host, _taken(host)) for name, host in list(plain.named_modules()) if grafts(host) is not None]
    left: list[tuple[nn.Module, list[Graft], nn.Module]] = []
    for name, host, found in grown:
        branches: list[Graft] = []
        for graft in found:
            if graft.poll() is not None or not graft.live:
                continue
            # A product before a sum must not see the sum: fold only what nothing multiplies first.
            first = all(before.blend != "multiply" for before in branches) and graft.blend != "multiply"
            graft.seed = plain_module(graft.seed)
            if not (name in folded and first and fold(host, graft, owners)):
                branches.append(graft)
        if branches:
            left.append((host, branches, holder(host)))
    for host, branches, inside in left:
        branch(host, branches, inside)
        _keep_called(plain, host)
    return plain


def _taken(host: nn.Module) -> list[Graft]:
    """Take every seed out of a host that has some."""
    bank = grafts(host)
    assert bank is not None
    found = [graft for graft in bank.values() if isinstance(graft, Graft)]
    for key in list(bank):
        detach(host, int(key))
    return found


def _owners(model: nn.Module) -> dict[int, int]:
    """Count in how many places each parameter stands: what is tied must not be folded into."""
    counts: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    return counts


def _outputs(model: nn.Module, example: object) -> list[Tensor]:
    args, kwargs = arguments(example)
    try:
        with undisturbed(model), torch.no_grad():
            for module in model.modules():
                module.training = False
            return [output.clone() for output in tensors(model(*args, **kwargs))]
    except Exception as error:
        text = f"{type(error).__name__}: {line_of(error)}"
        raise SlotError(f"the model does not run on the example: {text}") from error


def _agree(expected: list[Tensor], found: list[Tensor]) -> bool:
    """Say whether outputs are equal to half of their digits: what rounding leaves after many layers."""
    return len(expected) == len(found) and all(map(_near, expected, found))


def _near(one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point() or not one.numel():
        return torch.equal(one, other)
    largest = float(one.abs().nan_to_num(posinf=0.0).max())
    bound = torch.finfo(one.dtype).eps ** 0.5
    return torch.allclose(one, other, rtol=bound, atol=bound * largest, equal_nan=True)


def plain_module(seed: nn.Module) -> nn.Module:
    """Give a seed without classes of ours: itself, or what tracing it leaves."""
    if not any(_ours(part) for part in seed.modules()):
        return seed
    try:
        graph = _Tracer().trace(seed)
    except Exception as error:
        text = f"{type(error).__name__}: {line_of(error)}"
        raise SlotError(f"a seed of class {type(seed).__name__} cannot be traced into plain torch: {text}") from error
    traced = fx.GraphModule(seed, graph, type(seed).__name__)
    traced.training = seed.training
    return copy.deepcopy(traced)


class _Tracer(fx.Tracer):
    """Trace through every module of ours, and through nothing else."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(_ours(part) for part in m.modules())


def _ours(module: nn.Module) -> bool:
    return type(module).__module__.startswith("morphogen.")


def _keep_called(root: nn.Module, host: nn.Module) -> None:
    """Keep encoders around a branch from making nested tensors, which it could not read."""
    for encoder in root.modules():
        if isinstance(encoder, nn.TransformerEncoder) and any(part is host for part in encoder.modules()):
            encoder.use_nested_tensor = False
