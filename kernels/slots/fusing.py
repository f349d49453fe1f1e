"""A plain copy of a grown model: torch's modules and the user's, and nothing of ours.

What is linear beside something linear is folded into its weights. The rest stays a branch: a `torch.fx.GraphModule` that
is a child of its host, and runs as a forward hook of it, so that the host keeps its class, its names and its attributes.
"""

import copy
import inspect
import operator
from typing import Any

import torch
from torch import fx, nn

from morphogen.schemas import line_of

from . import fastpaths
from .copying import bare
from .errors import SlotError
from .folding import fold
from .graft import Graft
from .host import detach, grafts

BRANCH = "branch"
"""The child of a host, in a fused model, that holds a branch; with a number after it where the name is taken."""


def fuse(model: nn.Module) -> nn.Module:
    """Give a copy of `model` that needs no Morphogen: to run, to save whole, to export.

    Seeds that are blended in stay; seeds that are not, or were cut off, are left out. A linear seed beside an nn.Linear,
    and a convolution beside an nn.Conv2d whose taps hold its own, become part of the weight: equal up to rounding. All
    others are exact, and go on training. Raises SlotError for a seed of a class of ours that cannot be traced.
    """
    plain = bare(getattr(model, "_orig_mod", model))
    fastpaths.reopen(plain)
    owners = _owners(plain)
    for host in list(plain.modules()):
        bank = grafts(host)
        if bank is None:
            continue
        found = [graft for graft in bank.values() if isinstance(graft, Graft)]
        for key in list(bank):
            detach(host, int(key))
        branches: list[Graft] = []
        for graft in found:
            if graft.poll() is not None or not graft.live:
                continue
            # A product before a sum must not see the sum: fold only what nothing multiplies first.
            first = all(before.blend != "multiply" for before in branches) and graft.blend != "multiply"
            graft.seed = plain_module(graft.seed)
            if not (first and fold(host, graft, owners)):
                branches.append(graft)
        if branches:
            replaced = _branch(host, branches)
            if replaced is not host:
                plain = _replace(plain, host, replaced)
            _keep_called(plain, host)
    return plain


def _owners(model: nn.Module) -> dict[int, int]:
    """Count in how many places each parameter stands: what is tied must not be folded into."""
    counts: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    return counts


def _branch(host: nn.Module, grafts_: list[Graft]) -> nn.Module:
    """Put branches at a host; give the module that stands in its place: itself, or a graph around a Sequential."""
    root = nn.Module()
    graph = fx.Graph()
    sequential = isinstance(host, nn.Sequential)
    if sequential:  # would run a child as a link of its chain
        root.add_module("host", host)
        inputs = [graph.placeholder(name, default_value=default) for name, default in _parameters(host)]
        given, output = inputs[0], graph.call_module("host", tuple(inputs))
    else:
        graph.placeholder("module")
        args, kwargs = graph.placeholder("args"), graph.placeholder("kwargs")
        output = graph.placeholder("output")
        source = grafts_[0].source
        given = graph.call_function(operator.getitem, (args if isinstance(source, int) else kwargs, source))
    for number, graft in enumerate(grafts_):
        output = _joined(graph, root, number, graft, given, output)
    graph.output(output)
    graph.lint()
    branch = fx.GraphModule(root, graph, "Fused" if sequential else "Branch")
    branch.train(host.training)
    if sequential:
        return branch
    name = BRANCH
    while hasattr(host, name):
        name += "_"
    host.add_module(name, branch)
    host.register_forward_hook(branch, prepend=True, with_kwargs=True)
    return host


def _parameters(host: nn.Module) -> list[tuple[str, Any]]:
    found = list(inspect.signature(type(host).forward).parameters.values())[1:]
    if not found or any(parameter.kind is not parameter.POSITIONAL_OR_KEYWORD for parameter in found):
        raise SlotError(
            f"the forward of {type(host).__name__} takes *args or **kwargs: a fused copy needs named inputs"
        )
    return [(parameter.name, parameter.default) for parameter in found]


def _joined(graph: fx.Graph, root: nn.Module, number: int, graft: Graft, given: fx.Node, output: fx.Node) -> fx.Node:
    """Write the forward of `Graft` with its alpha as a number: the same operations in the same order."""
    root.add_module(f"seed{number}", graft.seed)
    if graft.isolate:
        given = graph.call_method("detach", (given,))
    seed = graph.call_module(f"seed{number}", (given,))
    dtype = graph.call_function(getattr, (output, "dtype"))
    seed = graph.call_method("to", (seed, dtype))
    if graft.blend == "multiply":
        bent = graph.call_function(operator.mul, (graft.level, graph.call_function(torch.tanh, (seed,))))
        return graph.call_function(operator.mul, (output, graph.call_function(operator.add, (1, bent))))
    if graft.gate is not None:
        root.register_parameter(f"gate{number}", nn.Parameter(graft.gate.detach().clone()))
        gate = graph.call_function(torch.sigmoid, (graph.get_attr(f"gate{number}"),))
        seed = graph.call_function(operator.mul, (seed, graph.call_method("to", (gate, dtype))))
    return graph.call_function(operator.add, (output, graph.call_function(operator.mul, (graft.level, seed))))


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
    traced.train(seed.training)
    return copy.deepcopy(traced)


class _Tracer(fx.Tracer):
    """Trace through every module of ours, and through nothing else."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(_ours(part) for part in m.modules())


def _ours(module: nn.Module) -> bool:
    return type(module).__module__.startswith("morphogen.")


def _replace(root: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put `new` wherever `old` stood."""
    if root is old:
        return new
    for module in list(root.modules()):
        if module is new:
            continue
        for name, child in list(module._modules.items()):
            if child is old:
                module._modules[name] = new
    return root


def _keep_called(root: nn.Module, host: nn.Module) -> None:
    """Keep encoders around a branch from making nested tensors, which it could not read."""
    for encoder in root.modules():
        if isinstance(encoder, nn.TransformerEncoder) and any(part is host for part in encoder.modules()):
            encoder.use_nested_tensor = False
