"""A short menu of blueprints for a site, by names that mean the same at every site.

    norm        normalise what comes in; a linear map follows where the shape must change
    rank1       a linear map through one value
    mlp16       two layers with 16 relu units between them; on an image a convolution and a 1x1 one
    mlp64       the same with 64
    attention   sequences: one causal head or more, of 16 values each
    conv3       sequences and images: a convolution over 3 positions, or 3x3
    depthwise3  images: one per channel, then a 1x1 one

Names are the same for every site of a kind, so that a policy can count what it learned by them.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from .blueprint import Blueprint, kind_of
from .errors import BlueprintError, InvalidBlueprint
from .ops import (
    Activation,
    Attention,
    Average,
    Conv,
    DepthwiseConv,
    Linear,
    LowRankLinear,
    Mlp,
    Node,
    Norm,
    Reshape,
    Resize,
    Shape,
)
from .shape_rules import after, channels_of
from .validation import validate


class Site(Protocol):
    """Where something may grow: `morphogen.schemas.SiteInfo` is one."""

    @property
    def kind(self) -> str:
        """Return features, sequence or image."""

    @property
    def in_shape(self) -> list[int] | None:
        """Return the shape of what it is given, without the batch; None where it was never called."""

    @property
    def out_shape(self) -> list[int] | None:
        """Return the shape of what it returns."""


NAMES = ("norm", "rank1", "mlp16", "mlp64", "attention", "conv3", "depthwise3")


def menu(site: Site) -> dict[str, Blueprint]:
    """Return blueprints that fit a site, by name, in the order of `NAMES`; empty where nothing fits.

    Nothing fits a site that was never called, or that changes the length of a sequence.
    """
    if site.in_shape is None or site.out_shape is None:
        return {}
    return entries(*fitting(site.kind, site.in_shape, site.out_shape))


def entries(given: Shape, wanted: Shape) -> dict[str, Blueprint]:
    """Return the menu for two shapes."""
    found = {}
    for name in NAMES:
        try:
            blueprint = _entry(name, given, wanted)
        except BlueprintError:
            continue
        if blueprint is not None:
            found[name] = blueprint
    return found


def fitting(kind: str, in_shape: Sequence[int | None], out_shape: Sequence[int | None]) -> tuple[Shape, Shape]:
    """Return the shapes that a blueprint should have: for features with further axes before them, the last axis only."""
    given, wanted = tuple(in_shape), tuple(out_shape)
    if kind == "features" and len(given) == len(wanted) > 1 and given[:-1] == wanted[:-1]:
        return given[-1:], wanted[-1:]
    return given, wanted


def assemble(name: str, given: Shape, wanted: Shape, nodes: Sequence[Node]) -> Blueprint:
    """Return a valid blueprint of nodes that already name what they read; the last one is the output.

    Raises:
        InvalidBlueprint: it is not one.
        UnfitBlueprint: it does not give what is wanted.
    """
    blueprint = Blueprint(name=name, inputs=given, nodes=tuple(nodes), output=len(nodes))
    validate(blueprint, given, wanted)
    return blueprint


class Chain:
    """Nodes one after the other, and the shape that they have come to.

    Raises:
        InvalidBlueprint: from `then`, where an operation cannot follow.
    """

    def __init__(self, given: Shape) -> None:
        self.shape = given
        self.nodes: list[Node] = []

    def then(self, *nodes: Node) -> "Chain":
        """Append operations, each reading the one before it."""
        for node in nodes:
            placed = _reading(node, len(self.nodes))
            self.shape = after(placed, [self.shape])
            self.nodes.append(placed)
        return self

    def narrowed(self, wanted: Shape) -> "Chain":
        """Come nearer to the wanted shape without weights, where that leaves less to compute."""
        here, there = kind_of(self.shape), kind_of(wanted)
        if here == there:
            if here == "sequence" and self.shape[0] != wanted[0]:
                raise InvalidBlueprint("nothing in the menu changes the length of a sequence")
            return self
        if there == "features":
            return self.then(Average())
        if here == "features" and there == "image":
            return self
        raise InvalidBlueprint(f"nothing in the menu makes {there} of {here}")

    def mapped(self, wanted: Shape) -> "Chain":
        """Append a linear map to exactly the wanted shape: at an image's pixels, after it was resized."""
        if kind_of(self.shape) == "image":
            _, height, width = wanted
            assert height is not None
            assert width is not None
            if self.shape[1:] != (height, width):
                self.then(Resize(height=height, width=width))
            return self.then(Conv(out=channels_of(wanted), kernel=1))
        if kind_of(wanted) == "image":
            shape = tuple(extent for extent in wanted if extent is not None)
            return self.then(Linear(out=shape[0] * shape[1] * shape[2]), Reshape(shape=shape))
        return self.then(Linear(out=channels_of(wanted)))


def window(given: Shape, wanted: Shape, out: int) -> Iterator[Conv]:
    """Yield convolutions of 3x3, then of other odd sizes, that bring one image size to another one."""
    for kernel in (3, 5, 1, 7):
        for stride in (1, 2, 4):
            for padding in range(kernel // 2, -1, -1):
                node = Conv(out=out, kernel=kernel, stride=stride, padding=padding)
                try:
                    shape = after(node, [given])
                except InvalidBlueprint:
                    continue
                if shape[1:] == wanted[1:]:
                    yield node


def _entry(name: str, given: Shape, wanted: Shape) -> Blueprint | None:
    """Return one entry, or None where it has no meaning for these shapes."""
    chain = Chain(given).narrowed(wanted)
    kind, out = kind_of(chain.shape), channels_of(wanted)
    image = kind == "image"
    match name:
        case "norm":
            if channels_of(chain.shape) == 1 and not image:
                return None  # one value normalised is always zero
            chain.then(Norm(kind="layer"))
            if chain.shape != wanted:
                chain.mapped(wanted)
        case "rank1" if image:
            chain.then(Conv(out=1, kernel=1, bias=False)).mapped(wanted)
        case "rank1":
            _low_rank(chain, 1, wanted)
        case "mlp16" | "mlp64":
            hidden = int(name[3:])
            if image:
                first = next(window(chain.shape, wanted, hidden), Conv(out=hidden, kernel=3, padding=1))
                chain.then(first, Activation(function="relu")).mapped(wanted)
            elif kind_of(wanted) == "image":
                chain.then(Linear(out=hidden), Activation(function="relu")).mapped(wanted)
            else:
                chain.then(Mlp(out=out, hidden=hidden, function="relu"))
        case "attention" if kind == "sequence":
            heads = max(1, min(4, channels_of(chain.shape) // 16))
            chain.then(Norm(kind="layer"), Attention(out=out, heads=heads, width=16))
        case "conv3" if kind == "sequence":
            chain.then(Conv(out=out, kernel=3))
        case "conv3" if image:
            whole = next(window(chain.shape, wanted, out), None)
            if whole is None:
                chain.then(Conv(out=channels_of(chain.shape), kernel=3, padding=1)).mapped(wanted)
            else:
                chain.then(whole)
        case "depthwise3" if image:
            spread = next(window(chain.shape, wanted, channels_of(chain.shape)), None)
            if spread is None or spread.kernel == 1:
                chain.then(DepthwiseConv(kernel=3, padding=1))
            else:
                chain.then(DepthwiseConv(kernel=spread.kernel, stride=spread.stride, padding=spread.padding))
            chain.mapped(wanted)
        case _:
            return None
    return assemble(name, given, wanted, chain.nodes)


def _low_rank(chain: Chain, rank: int, wanted: Shape) -> None:
    if kind_of(wanted) == "image":
        chain.then(Linear(out=rank, bias=False)).mapped(wanted)
    else:
        chain.then(LowRankLinear(out=channels_of(wanted), rank=rank))


def _reading(node: Node, place: int) -> Node:
    return msgspec.structs.replace(node, of=(place,))
