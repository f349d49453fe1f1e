"""What a blueprint costs, exactly: parameters, floating-point operations, values held.

Operations count as torch.utils.flop_counter counts them: two for each multiply-add of a matrix product or a convolution,
nothing for what is done value by value. Attention counts in full, also where half of it is masked.
"""

from .blueprint import Blueprint, shape_text
from .errors import UnfitBlueprint
from .ops import (
    Attention,
    Conv,
    DepthwiseConv,
    Gate,
    Linear,
    LowRankLinear,
    Mlp,
    Node,
    Norm,
    Shape,
)
from .shape_rules import channels_of, shapes


def params(blueprint: Blueprint) -> int:
    """Return how many trainable values the built module has."""
    found = shapes(blueprint)
    return sum(node_params(node, [found[place] for place in node.of]) for node in blueprint.nodes)


def flops(blueprint: Blueprint, *, length: int | None = None) -> int:
    """Return the operations of one forward pass of one sample.

    `length` is needed where the blueprint leaves the length of its sequence open.

    Raises:
        UnfitBlueprint: the length is open, and was not given.
    """
    found = [fixed(shape, length, blueprint) for shape in shapes(blueprint)]
    return sum(
        node_flops(node, [found[place] for place in node.of], found[number])
        for number, node in enumerate(blueprint.nodes, 1)
    )


def largest(blueprint: Blueprint) -> int:
    """Return how many values the largest result of a node has, one sample; an open length counts as 1."""
    return max(elements(shape) for shape in shapes(blueprint))


def fixed(shape: Shape, length: int | None, blueprint: Blueprint) -> Shape:
    """Return a shape whose open length is filled in.

    Raises:
        UnfitBlueprint: it is open, and no length was given.
    """
    if shape[0] is not None:
        return shape
    if length is None:
        raise UnfitBlueprint(
            f"blueprint {blueprint.name}: the length in {shape_text(shape)} is open: say length=, to count operations"
        )
    return (length, *shape[1:])


def elements(shape: Shape) -> int:
    """Return how many values a sample of this shape has; an open length counts as 1."""
    values = 1
    for extent in shape:
        values *= 1 if extent is None else extent
    return values


def node_params(node: Node, given: list[Shape]) -> int:
    """Return the trainable values of one operation on inputs of these shapes."""
    entering = channels_of(given[0])
    match node:
        case Linear():
            return node.out * (entering + node.bias)
        case LowRankLinear():
            return node.rank * (entering + node.out) + node.out * node.bias
        case Mlp():
            return node.hidden * (entering + 1) + node.out * (node.hidden + 1)
        case Conv():
            return node.out * (entering // node.groups * _window(node, given[0]) + node.bias)
        case DepthwiseConv():
            return entering * (_window(node, given[0]) + node.bias)
        case Norm():
            return entering * (1 if node.kind == "rms" else 2)
        case Attention():
            inner = node.heads * node.width
            return 3 * inner * (entering + 1) + node.out * (inner + 1)
        case Gate():
            return entering * (channels_of(given[-1]) + 1)
        case _:
            return 0


def node_flops(node: Node, given: list[Shape], result: Shape) -> int:
    """Return the operations of one node on one sample."""
    entering = channels_of(given[0])
    places = elements(result) // channels_of(result)
    match node:
        case Linear():
            return 2 * places * entering * node.out
        case LowRankLinear():
            return 2 * places * node.rank * (entering + node.out)
        case Mlp():
            return 2 * places * node.hidden * (entering + node.out)
        case Conv():
            return 2 * places * node.out * (entering // node.groups) * _window(node, result)
        case DepthwiseConv():
            return 2 * places * entering * _window(node, result)
        case Attention():
            inner = node.heads * node.width
            return 2 * places * inner * (3 * entering + node.out) + 4 * places * places * inner
        case Gate():
            pixels = 1 if len(result) == 3 else places
            return 2 * pixels * entering * channels_of(given[-1])
        case _:
            return 0


def _window(node: Conv | DepthwiseConv, shape: Shape) -> int:
    return node.kernel * node.kernel if len(shape) == 3 else node.kernel
