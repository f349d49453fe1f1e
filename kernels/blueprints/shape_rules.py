"""Which shape each operation makes of which: the one place that knows."""

from collections.abc import Sequence

from .blueprint import MAX_EXTENT, MAX_NODES, Blueprint, check_shape, kind_of, shape_text
from .errors import InvalidBlueprint
from .ops import (
    Activation,
    Attention,
    Average,
    Conv,
    DepthwiseConv,
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


def shapes(blueprint: Blueprint) -> tuple[Shape, ...]:
    """Return the shape of the input and then of every node's result, without the batch.

    Raises:
        InvalidBlueprint: a node reads what does not stand before it, or what it cannot take.
    """
    if not 1 <= len(blueprint.nodes) <= MAX_NODES:
        raise InvalidBlueprint(
            f"blueprint {blueprint.name}: {len(blueprint.nodes)} nodes; from 1 to {MAX_NODES} are allowed"
        )
    check_shape(blueprint.inputs, f"blueprint {blueprint.name}: input")
    found: list[Shape] = [blueprint.inputs]
    for number, node in enumerate(blueprint.nodes, 1):
        where = f"blueprint {blueprint.name}: node {number} ({node.__struct_config__.tag})"
        wanted = {Residual: (2,), Gate: (1, 2)}.get(type(node), (1,))
        if len(node.of) not in wanted:
            raise InvalidBlueprint(f"{where} reads {len(node.of)} values, not {' or '.join(map(str, wanted))}")
        if not all(0 <= place < number for place in node.of):
            raise InvalidBlueprint(f"{where} reads {node.of}: it may read 0 to {number - 1}")
        try:
            shape = after(node, [found[place] for place in node.of])
            check_shape(shape, "its result")
        except InvalidBlueprint as error:
            raise InvalidBlueprint(f"{where}: {error}") from None
        found.append(shape)
    if not 1 <= blueprint.output < len(found):
        raise InvalidBlueprint(f"blueprint {blueprint.name}: output {blueprint.output} is not one of its nodes")
    return tuple(found)


def shape_of(blueprint: Blueprint) -> Shape:
    """Return the shape of a blueprint's result, without the batch."""
    return shapes(blueprint)[blueprint.output]


def after(node: Node, given: Sequence[Shape]) -> Shape:
    """Return the shape that an operation makes of its inputs.

    Raises:
        InvalidBlueprint: it cannot take them; the message does not say where, which the caller knows.
    """
    shape = given[0]
    kind = kind_of(shape)
    match node:
        case Linear():
            _only(kind, ("features", "sequence"))
            return (*shape[:-1], _size("out", node.out))
        case LowRankLinear():
            _only(kind, ("features", "sequence"))
            _size("rank", node.rank)
            return (*shape[:-1], _size("out", node.out))
        case Mlp():
            _size("hidden", node.hidden)
            out = _size("out", node.out)
            return (out, *shape[1:]) if kind == "image" else (*shape[:-1], out)
        case Conv():
            _only(kind, ("sequence", "image"))
            channels = channels_of(shape)
            if channels % _size("groups", node.groups) or _size("out", node.out) % node.groups:
                raise InvalidBlueprint(f"{node.groups} groups do not divide {channels} channels in and {node.out} out")
            return _convolved(node, shape, node.out)
        case DepthwiseConv():
            _only(kind, ("sequence", "image"))
            return _convolved(node, shape, channels_of(shape))
        case Norm():
            return _normed(node, shape, kind)
        case Attention():
            _only(kind, ("sequence",))
            _size("heads x width", _size("heads", node.heads) * _size("width", node.width))
            return (shape[0], _size("out", node.out))
        case Activation():
            return shape
        case Gate():
            if kind_of(given[-1]) != kind or (given[-1][:-1] != shape[:-1] and kind == "sequence"):
                raise InvalidBlueprint(f"cannot gate {shape_text(shape)} by {shape_text(given[-1])}")
            return shape
        case Residual():
            if given[0] != given[1]:
                raise InvalidBlueprint(f"cannot add {shape_text(given[0])} and {shape_text(given[1])}")
            return shape
        case Resize():
            _only(kind, ("image",))
            return (shape[0], _size("height", node.height), _size("width", node.width))
        case Average():
            _only(kind, ("sequence", "image"))
            return (channels_of(shape),)
        case Reshape():
            return _reshaped(node, shape, kind)


def channels_of(shape: Shape) -> int:
    """Return how many channels a shape has: the first axis of an image, the last one of anything else."""
    found = shape[0] if len(shape) == 3 else shape[-1]
    assert found is not None, "only the length of a sequence is open"
    return found


def grows(node: Resize, shape: Shape) -> bool:
    """Tell whether a resize makes any side of an image longer."""
    _, height, width = shape
    assert height is not None
    assert width is not None
    return node.height > height or node.width > width


def _convolved(node: Conv | DepthwiseConv, shape: Shape, out: int) -> Shape:
    kernel, stride = _size("kernel", node.kernel), _size("stride", node.stride)
    if len(shape) == 2:
        if stride != 1 or node.padding != 0:
            raise InvalidBlueprint(
                "on a sequence, stride is 1 and padding 0: the length stays, the padding is worked out"
            )
        if not node.causal and kernel % 2 == 0:
            raise InvalidBlueprint(f"kernel {kernel}: on a sequence that looks both ways it must be odd")
        return (shape[0], out)
    if not 0 <= node.padding <= kernel // 2:
        raise InvalidBlueprint(f"padding {node.padding}: from 0 to half the kernel, {kernel // 2}")
    sides = []
    for extent in shape[1:]:
        assert extent is not None
        side = (extent + 2 * node.padding - kernel) // stride + 1
        if side < 1:
            raise InvalidBlueprint(f"kernel {kernel} does not fit into {shape_text(shape)} with padding {node.padding}")
        sides.append(side)
    return (out, *sides)


def _normed(node: Norm, shape: Shape, kind: str) -> Shape:
    _size("groups", node.groups)
    if kind == "sequence" and node.kind not in {"layer", "rms"}:
        raise InvalidBlueprint(f"{node.kind} norm would mix the positions of a sequence: use layer or rms")
    if kind == "image" and node.kind == "rms":
        raise InvalidBlueprint("rms norm is for features and sequences: use layer, group or batch on an image")
    channels = channels_of(shape)
    if node.kind == "group" and channels % node.groups:
        raise InvalidBlueprint(f"{node.groups} groups do not divide {channels} channels")
    if node.kind != "group" and node.groups != 1:
        raise InvalidBlueprint(f"groups are for group norm, not for {node.kind}")
    return shape


def _reshaped(node: Reshape, shape: Shape, kind: str) -> Shape:
    _only(kind, ("features", "image"))
    if len(node.shape) not in {1, 3} or len(node.shape) == len(shape):
        raise InvalidBlueprint(
            f"reshape {shape_text(shape)} to {shape_text(node.shape)}: an image to features, or back"
        )
    check_shape(node.shape, "its shape")
    if _count(shape) != _count(node.shape):
        raise InvalidBlueprint(f"reshape {shape_text(shape)} to {shape_text(node.shape)}: not as many values")
    return node.shape


def _count(shape: Shape) -> int:
    values = 1
    for extent in shape:
        assert extent is not None
        values *= extent
    return values


def _only(kind: str, kinds: tuple[str, ...]) -> None:
    if kind not in kinds:
        raise InvalidBlueprint(f"it takes {' or '.join(kinds)}, not {kind}")


def _size(what: str, value: int) -> int:
    if not 1 <= value <= MAX_EXTENT:
        raise InvalidBlueprint(f"{what} {str(value)[:24]}: from 1 to {MAX_EXTENT}")
    return value
