"""From a blueprint to a module: plain torch modules and nothing of ours, so that what is pickled needs no Morphogen.

A chain becomes an `nn.Sequential`, anything else a `torch.fx.GraphModule`. Node k is the child `n<k>`. Modules hold for any
batch, and for any length of a sequence. The process' own random numbers are neither drawn from nor reseeded.
"""

import math
import operator
from collections import OrderedDict
from typing import Any

from .blueprint import Blueprint
from .errors import BadInit, InvalidBlueprint, MissingExtra
from .ops import (
    Activation,
    Attention,
    Average,
    Conv,
    DepthwiseConv,
    Function,
    Gate,
    Linear,
    LowRankLinear,
    Mlp,
    Node,
    Norm,
    Reshape,
    Residual,
    Resize,
    Shape,
)
from .shape_rules import channels_of, grows, shapes
from .validation import last_layers, validate

try:
    import torch
    from torch import fx, nn
except ImportError as missing:
    raise MissingExtra("building a blueprint needs torch: pip install 'morphogen[adapt]'") from missing

_FUNCTIONS: dict[Function, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def build(
    blueprint: Blueprint,
    *,
    seed: int,
    zero_last: bool = True,
    gain: float = 1.0,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """Return the module that a blueprint describes, in training mode, its weights drawn from a generator of its own.

    Weights and biases are uniform within 1/sqrt(fan-in), as torch's own layers begin. The values depend on the blueprint
    and `seed` only: they are drawn on the CPU in float32, then cast and moved.

    Args:
        blueprint: What to build; it is validated first.
        seed: Of the weights.
        zero_last: Set the last weights to zero, so that it returns exact zeros and learns from there.
        gain: Factor on the last weights where they are not zero: 0.1 begins as a small random map.
        dtype: Of the weights; float32 when None.
        device: Where they will lie.

    Raises:
        InvalidBlueprint: it cannot be built.
        BadInit: weights came out that are not finite.
    """
    if not (math.isfinite(gain) and abs(gain) <= 1e6):
        raise InvalidBlueprint(f"gain {gain}: give a finite factor of at most a million")
    validate(blueprint)
    module = drawn(blueprint, seed)
    with torch.no_grad():
        factor = 0.0 if zero_last else gain
        for number in sorted(last_layers(blueprint)):
            last = _last_part(module, number)
            for weight in last.parameters(recurse=False):
                weight.copy_(torch.zeros_like(weight) if factor == 0.0 else weight * factor)
        module = module.to(device=device, dtype=dtype or torch.float32)
        for name, value in module.state_dict().items():
            if not bool(torch.isfinite(value).all()):
                raise BadInit(
                    f"blueprint {blueprint.name}: {name} began with values that are not finite, from seed {seed}"
                )
    return module


def drawn(blueprint: Blueprint, seed: int) -> nn.Module:
    """Return the module with all its weights drawn, of any graph whose shapes are right: it need not begin as nothing."""
    module = skeleton(blueprint).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed % 2**63)
    with torch.no_grad():
        for part in module.modules():
            _draw(part, generator)
    return module


def skeleton(blueprint: Blueprint) -> nn.Module:
    """Return the module on the meta device: names, shapes and dtypes of its tensors, no memory and no random numbers.

    Raises:
        InvalidBlueprint: it cannot be built.
    """
    found = shapes(blueprint)
    chain = blueprint.output == len(blueprint.nodes)
    children: dict[str, nn.Module] = OrderedDict()
    graph = fx.Graph()
    values = [graph.placeholder("x")]
    with torch.device("meta"):
        for number, node in enumerate(blueprint.nodes, 1):
            before = len(graph.nodes)
            given = [found[place] for place in node.of]
            values.append(_emit(graph, children, f"n{number}", node, [values[place] for place in node.of], given))
            chain = chain and node.of == (number - 1,) and len(graph.nodes) == before + 1
            chain = chain and values[-1].op == "call_module"
        if chain:
            return nn.Sequential(OrderedDict(children))
        graph.output(values[blueprint.output])
        root = nn.Module()
        for name, child in children.items():
            root.add_module(name, child)
        return fx.GraphModule(root, graph, class_name="Blueprint")


def _emit(
    graph: fx.Graph,
    children: dict[str, nn.Module],
    name: str,
    node: Node,
    values: list[fx.Node],
    given: list[Shape],
) -> fx.Node:
    """Add one operation to the graph, and its module to the children; return its result."""
    x, shape = values[0], given[0]
    entering = channels_of(shape)

    def call(module: nn.Module) -> fx.Node:
        children[name] = module
        return graph.call_module(name, (x,))

    match node:
        case Linear():
            return call(nn.Linear(entering, node.out, bias=node.bias))
        case LowRankLinear():
            down = nn.Linear(entering, node.rank, bias=False)
            return call(nn.Sequential(down, nn.Linear(node.rank, node.out, bias=node.bias)))
        case Mlp():
            layer: Any = nn.Linear if len(shape) != 3 else _pointwise
            return call(
                nn.Sequential(layer(entering, node.hidden), _FUNCTIONS[node.function](), layer(node.hidden, node.out))
            )
        case Conv() | DepthwiseConv():
            out, groups = (node.out, node.groups) if isinstance(node, Conv) else (entering, entering)
            return _convolve(graph, children, name, node, x, (len(shape), entering, out, groups))
        case Norm():
            return call(_norm(node, shape, entering))
        case Attention():
            return _attend(graph, children, name, node, x, entering)
        case Activation():
            return call(_FUNCTIONS[node.function]())
        case Gate():
            children[name] = nn.Linear(channels_of(given[-1]), entering)
            image = len(shape) == 3
            by = graph.call_method("mean", (values[-1], (-2, -1))) if image else values[-1]
            opened = graph.call_function(torch.sigmoid, (graph.call_module(name, (by,)),))
            if image:
                opened = graph.call_method("unflatten", (opened, -1, (entering, 1, 1)))
            return graph.call_function(operator.mul, (x, opened))
        case Residual():
            return graph.call_function(operator.add, (values[0], values[1]))
        case Resize():
            size = (node.height, node.width)
            return call(nn.Upsample(size=size, mode="nearest") if grows(node, shape) else nn.AdaptiveAvgPool2d(size))
        case Average():
            return graph.call_method("mean", (x, (-2, -1) if len(shape) == 3 else -2))
        case Reshape():
            if len(node.shape) == 1:
                return graph.call_method("flatten", (x, -3))
            return graph.call_method("unflatten", (x, -1, node.shape))


def _pointwise(entering: int, out: int) -> nn.Module:
    return nn.Conv2d(entering, out, 1)


def _norm(node: Norm, shape: Shape, entering: int) -> nn.Module:
    image = len(shape) == 3
    match node.kind:
        case "layer":
            return nn.GroupNorm(1, entering) if image else nn.LayerNorm(entering)
        case "rms":
            return nn.RMSNorm(entering, eps=1e-6)
        case "group":
            return nn.GroupNorm(node.groups, entering)
        case "batch":
            return nn.BatchNorm2d(entering) if image else nn.BatchNorm1d(entering)


def _convolve(
    graph: fx.Graph,
    children: dict[str, nn.Module],
    name: str,
    node: Conv | DepthwiseConv,
    x: fx.Node,
    sizes: tuple[int, int, int, int],
) -> fx.Node:
    axes, entering, out, groups = sizes
    if axes == 3:
        children[name] = nn.Conv2d(entering, out, node.kernel, node.stride, node.padding, groups=groups, bias=node.bias)
        return graph.call_module(name, (x,))
    both_sides = 0 if node.causal else node.kernel // 2
    children[name] = nn.Conv1d(entering, out, node.kernel, padding=both_sides, groups=groups, bias=node.bias)
    turned = graph.call_method("transpose", (x, -1, -2))
    if node.causal and node.kernel > 1:
        turned = graph.call_function(nn.functional.pad, (turned, (node.kernel - 1, 0)))
    return graph.call_method("transpose", (graph.call_module(name, (turned,)), -1, -2))


def _attend(
    graph: fx.Graph, children: dict[str, nn.Module], name: str, node: Attention, x: fx.Node, entering: int
) -> fx.Node:
    inner = node.heads * node.width
    children[name] = nn.ModuleDict({"qkv": nn.Linear(entering, 3 * inner), "out": nn.Linear(inner, node.out)})
    parts = graph.call_method("chunk", (graph.call_module(f"{name}.qkv", (x,)), 3, -1))
    heads = []
    for place in range(3):
        part = graph.call_function(operator.getitem, (parts, place))
        split = graph.call_method("unflatten", (part, -1, (node.heads, node.width)))
        heads.append(graph.call_method("transpose", (split, -3, -2)))
    attend = nn.functional.scaled_dot_product_attention
    mixed = graph.call_function(attend, tuple(heads), {"is_causal": node.causal})
    joined = graph.call_method("flatten", (graph.call_method("transpose", (mixed, -3, -2)), -2))
    return graph.call_module(f"{name}.out", (joined,))


def _draw(part: nn.Module, generator: torch.Generator) -> None:
    """Fill the tensors that a module holds itself."""
    if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d):
        bound = 1 / math.sqrt(max(1, part.weight[0].numel()))
        part.weight.uniform_(-bound, bound, generator=generator)
        if part.bias is not None:
            part.bias.uniform_(-bound, bound, generator=generator)
    elif isinstance(part, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm | nn.BatchNorm1d | nn.BatchNorm2d):
        for name, weight in part.named_parameters(recurse=False):
            weight.fill_(1.0 if name == "weight" else 0.0)
        for name, buffer in part.named_buffers(recurse=False):
            buffer.fill_(1 if name == "running_var" else 0)
    else:
        held = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
        assert not held, f"{type(part).__name__} has values that nobody has filled"


def _last_part(module: nn.Module, number: int) -> nn.Module:
    """Return the module that holds the last weights of a node."""
    part = module.get_submodule(f"n{number}")
    children = dict(part.named_children())
    if "out" in children:
        return children["out"]
    return part[-1] if isinstance(part, nn.Sequential) else part
