"""Blueprints that people would try: the menu, and wider, deeper, normed, gated and branched relatives of it."""

from collections.abc import Callable, Iterator
from functools import partial

from .blueprint import Blueprint, kind_of
from .errors import BlueprintError
from .menus import Chain, assemble, window
from .menus import entries as menu_entries
from .ops import (
    Activation,
    Attention,
    Conv,
    Function,
    Gate,
    Linear,
    LowRankLinear,
    Mlp,
    Node,
    Norm,
    Residual,
    Shape,
)
from .shape_rules import channels_of

_WIDTHS = (4, 8, 32, 128, 256)


def templates(given: Shape, wanted: Shape) -> list[Blueprint]:
    """Return valid blueprints from one shape to another, the menu's first; empty where none is known."""
    found = list(menu_entries(given, wanted).values())
    for name, make in _makers(given, wanted):
        try:
            chain = make(Chain(given).narrowed(wanted))
            found.append(assemble(name, given, wanted, chain.nodes))
        except BlueprintError:
            continue
    return found


def _makers(given: Shape, wanted: Shape) -> Iterator[tuple[str, Callable[[Chain], Chain]]]:
    out = channels_of(wanted)
    functions: tuple[Function, ...] = ("gelu", "silu")
    for width in _WIDTHS:
        yield f"mlp{width}", partial(_bent, wanted=wanted, width=width, function="relu")
    for width in (16, 64, 256):
        for function in functions:
            yield f"{function}{width}", partial(_bent, wanted=wanted, width=width, function=function)
        yield f"normed{width}", partial(_normed, wanted=wanted, width=width)
        yield f"gated{width}", partial(_gated, wanted=wanted, width=width)
        yield f"deep{width}", partial(_deep, wanted=wanted, width=width)
    for rank in (2, 4, 8, 16):
        yield f"rank{rank}", partial(_low_rank, wanted=wanted, rank=rank)
    yield "linear", partial(Chain.mapped, wanted=wanted)
    if kind_of(given) == kind_of(wanted) == "sequence":
        for heads in (1, 2, 4):
            attention = Attention(out=out, heads=heads, width=16)
            yield f"attention{heads}", partial(_followed, nodes=(Norm(kind="rms"), attention))
        yield "conv5", partial(_followed, nodes=(Conv(out=out, kernel=5),))
        mixed = (Conv(out=32, kernel=3), Activation(function="gelu"), Linear(out=out))
        yield "conv3mlp", partial(_followed, nodes=mixed)


def _followed(chain: Chain, *, nodes: tuple[Node, ...]) -> Chain:
    return chain.then(*nodes)


def _bent(chain: Chain, *, wanted: Shape, width: int, function: Function) -> Chain:
    """Append two maps with a function between them."""
    if kind_of(chain.shape) == "image":
        first = next(window(chain.shape, wanted, width), Conv(out=width, kernel=3, padding=1))
        return chain.then(first, Activation(function=function)).mapped(wanted)
    if kind_of(wanted) == "image":
        return chain.then(Linear(out=width), Activation(function=function)).mapped(wanted)
    return chain.then(Mlp(out=channels_of(wanted), hidden=width, function=function))


def _normed(chain: Chain, *, wanted: Shape, width: int) -> Chain:
    return _bent(chain.then(Norm(kind="layer")), wanted=wanted, width=width, function="gelu")


def _gated(chain: Chain, *, wanted: Shape, width: int) -> Chain:
    first = Conv(out=width, kernel=1) if kind_of(chain.shape) == "image" else Linear(out=width)
    return chain.then(first, Gate()).mapped(wanted)


def _deep(chain: Chain, *, wanted: Shape, width: int) -> Chain:
    """Append two hidden layers, the second one beside a way around it."""
    image = kind_of(chain.shape) == "image"

    def layer() -> Conv | Linear:
        return Conv(out=width, kernel=1) if image else Linear(out=width)

    chain.then(layer(), Activation(function="gelu"))
    kept = len(chain.nodes)
    chain.then(layer(), Activation(function="gelu"))
    chain.nodes.append(Residual(of=(kept, len(chain.nodes))))
    return chain.mapped(wanted)


def _low_rank(chain: Chain, *, wanted: Shape, rank: int) -> Chain:
    if kind_of(chain.shape) == "image":
        return chain.then(Conv(out=rank, kernel=1, bias=False)).mapped(wanted)
    if kind_of(wanted) == "image":
        return chain.then(Linear(out=rank, bias=False)).mapped(wanted)
    return chain.then(LowRankLinear(out=channels_of(wanted), rank=rank))
