"""A branch of a fused model: a `torch.fx.GraphModule` that runs as a forward hook of its host.

So the host keeps its class, its names and its attributes. The branch is a child of the host; one at a Sequential, which
would run a child as a link of its chain, is a child of the last module in it.
"""

import inspect
import itertools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from .graft import Graft

BRANCH = "branch"
"""The child that holds a branch, in a fused model; with a `_` after it where the name is taken."""

_MOST = 16  # arguments that are looked at beyond the named ones, where a forward takes *args or **kwargs


def branch(host: nn.Module, grafts: list[Graft], inside: nn.Module) -> None:
    """Put seeds at a host, which has none any more, as a branch of plain torch: a child of `inside`, its `holder`."""
    root = nn.Module()
    graph = fx.Graph()
    graph.placeholder("module")
    args, kwargs, output = (graph.placeholder(name) for name in ("args", "kwargs", "output"))
    given = _first(graph, args, kwargs, _arguments(host))
    for number, graft in enumerate(grafts):
        output = _joined(graph, root, number, graft, given, output)
    graph.output(output)
    graph.lint()
    made = fx.GraphModule(root, graph, "Branch")
    made.training = host.training
    name = BRANCH
    while hasattr(inside, name):
        name += "_"
    inside.add_module(name, made)
    host.register_forward_hook(made, prepend=True, with_kwargs=True)


def holder(host: nn.Module) -> nn.Module:
    """Return the module that a branch of `host` is to be a child of, in a model that has neither seeds nor branches."""
    if not isinstance(host, nn.Sequential):
        return host
    inner = [part for part in host.modules() if not isinstance(part, nn.Sequential) and not list(part.children())]
    if not inner:
        host.append(nn.Identity())
    return inner[-1] if inner else host[-1]


def _arguments(host: nn.Module) -> int:
    """Count the arguments that a call of the host may have."""
    found = list(inspect.signature(type(host).forward).parameters.values())[1:]
    open_ended = any(parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in found)
    return len(found) + _MOST * open_ended


def _first(graph: fx.Graph, args: fx.Node, kwargs: fx.Node, most: int) -> fx.Node:
    """Write what finds the first tensor of a call, by position or by name, in each pass anew.

    Straight-line code of the standard library, since what is pickled is the code, and is traced again when it is loaded.
    """
    named = graph.call_method("values", (kwargs,))
    if most == 1:
        return _plain(graph, next, _plain(graph, itertools.chain, args, named))
    values = _plain(graph, tuple, _plain(graph, itertools.chain, args, named, (None,) * most))
    each = [graph.call_function(operator.getitem, (values, place)) for place in range(most)]
    tensors = tuple(_plain(graph, hasattr, value, "is_leaf") for value in each)
    return _plain(graph, next, _plain(graph, itertools.compress, values, tensors))


def _plain(graph: fx.Graph, function: Callable[..., Any], *args: Any) -> fx.Node:
    """Write a call of a function that torch must not look into when it traces the code again."""
    node = graph.call_function(function, args)
    node.meta["is_wrapped"] = True
    return node


def _joined(graph: fx.Graph, root: nn.Module, number: int, graft: Graft, given: fx.Node, output: fx.Node) -> fx.Node:
    """Write the forward of `Graft` with its alpha as a number: the same operations in the same order."""
    root.add_module(f"seed{number}", graft.seed)
    level = graft.level
    if graft.isolate:
        given = graph.call_method("detach", (given,))
    seed = graph.call_module(f"seed{number}", (given,))
    dtype = graph.call_function(getattr, (output, "dtype"))
    seed = graph.call_method("to", (seed, dtype))
    if graft.blend == "multiply":
        bent = graph.call_function(operator.mul, (level, graph.call_function(torch.tanh, (seed,))))
        return graph.call_function(operator.mul, (output, graph.call_function(operator.add, (1, bent))))
    if graft.gate is not None:
        root.register_parameter(f"gate{number}", nn.Parameter(graft.gate.detach().clone()))
        gate = graph.call_function(torch.sigmoid, (graph.get_attr(f"gate{number}"),))
        seed = graph.call_function(operator.mul, (seed, graph.call_method("to", (gate, dtype))))
    return graph.call_function(operator.add, (output, graph.call_function(operator.mul, (level, seed))))
