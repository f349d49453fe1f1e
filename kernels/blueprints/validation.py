"""Whether a blueprint can be built, fits a site, keeps to a budget, and can begin as nothing."""

import msgspec

from .blueprint import MAX_BYTES, MAX_PARAMS, Blueprint, check_name, encode, shape_text
from .costs import flops, largest, params
from .errors import InvalidBlueprint, OverBudget, UnfitBlueprint
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
    Norm,
    Reshape,
    Residual,
    Resize,
    Shape,
)
from .shape_rules import shapes


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What a blueprint may cost at most; None is no limit beyond the room's own."""

    params: int | None = None
    flops: int | None = None  # of one sample
    elements: int | None = None  # values of one sample in the largest result of a node


def validate(
    blueprint: Blueprint,
    site_in: Shape | list[int] | None = None,
    site_out: Shape | list[int] | None = None,
    budget: Budget | None = None,
    *,
    length: int | None = None,
) -> None:
    """Refuse a blueprint that could not be built, does not fit, costs too much, or cannot begin as nothing.

    Args:
        blueprint: What to check.
        site_in: Shape, without the batch, of what the site is given; an open length on either side fits any length.
        site_out: Shape of what the site returns.
        budget: What it may cost.
        length: Of a sequence whose length the blueprint leaves open, to count operations.

    Raises:
        InvalidBlueprint: it is no graph that can be built.
        UnfitBlueprint: it is made for other shapes.
        OverBudget: it costs more than `budget`, or than any blueprint may.
    """
    check_name(blueprint.name)
    found = shapes(blueprint)
    if len(encode(blueprint)) > MAX_BYTES:
        raise InvalidBlueprint(f"blueprint {blueprint.name}: more than {MAX_BYTES} bytes")
    unused = set(range(1, len(found))) - _reached(blueprint)
    if unused:
        raise InvalidBlueprint(f"blueprint {blueprint.name}: nothing reads node {min(unused)}: leave it out")
    last_layers(blueprint)
    for what, shape, wanted in (("takes", found[0], site_in), ("gives", found[blueprint.output], site_out)):
        if wanted is not None and not same(shape, tuple(wanted)):
            raise UnfitBlueprint(
                f"blueprint {blueprint.name} {what} {shape_text(shape)}, the site {shape_text(tuple(wanted))}"
            )
    limits = budget or Budget()
    _limit(
        blueprint,
        "parameters",
        params(blueprint),
        min(MAX_PARAMS, MAX_PARAMS if limits.params is None else limits.params),
    )
    if limits.flops is not None:
        _limit(blueprint, "operations a sample", flops(blueprint, length=length), limits.flops)
    if limits.elements is not None:
        _limit(blueprint, "values in one result", largest(blueprint), limits.elements)


def keeps_to(blueprint: Blueprint, budget: Budget, *, length: int | None = None) -> bool:
    """Tell whether a valid blueprint costs no more than it may."""
    try:
        validate(blueprint, budget=budget, length=length)
    except OverBudget:
        return False
    return True


def same(one: Shape, other: Shape) -> bool:
    """Tell whether two shapes fit: an open length fits any."""
    return len(one) == len(other) and all(a == b or a is None or b is None for a, b in zip(one, other, strict=True))


def last_layers(blueprint: Blueprint) -> frozenset[int]:
    """Return the nodes whose last weights decide whether the result is zero: set these to zero, and it is.

    It walks back from the output through what keeps zero at zero and lets a gradient through.

    Raises:
        InvalidBlueprint: there are none, because the result ends in something that is not zero, or that no longer learns
            from zero (a relu).
    """
    found: set[int] = set()
    seen: set[int] = set()
    waiting = [blueprint.output]
    while waiting:
        number = waiting.pop()
        if number in seen:
            continue
        seen.add(number)
        node = blueprint.nodes[number - 1] if number else None
        match node:
            case Linear() | LowRankLinear() | Mlp() | Attention() | Conv() | DepthwiseConv() | Norm():
                found.add(number)
            case Resize() | Average() | Reshape() | Residual():
                waiting.extend(node.of)
            case Gate():
                waiting.append(node.of[0])
            case Activation(function="gelu" | "silu" | "tanh"):
                waiting.extend(node.of)
            case _:
                what = f"node {number} ({node.__struct_config__.tag})" if node else "the input itself"
                raise InvalidBlueprint(
                    f"blueprint {blueprint.name} cannot begin as nothing: its result comes from {what}; "
                    "put a linear, conv or norm node behind it"
                )
    return frozenset(found)


def _reached(blueprint: Blueprint) -> set[int]:
    found: set[int] = set()
    waiting = [blueprint.output]
    while waiting:
        number = waiting.pop()
        if number and number not in found:
            found.add(number)
            waiting.extend(blueprint.nodes[number - 1].of)
    return found


def _limit(blueprint: Blueprint, what: str, needed: int, limit: int) -> None:
    if needed > limit:
        raise OverBudget(f"blueprint {blueprint.name} needs {needed} {what}, the limit is {limit}")
