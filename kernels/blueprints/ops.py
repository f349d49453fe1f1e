"""The operations that a blueprint is made of: plain data, one struct each, told apart by a tag.

`of` says what a node reads: 0 is the blueprint's input, k is the result of the k-th node. An operation on features acts
on the last axis, so that it holds for any axes before it. On sequences everything is causal by default: no position
reads a later one, so that a graph grown inside a language model cannot look ahead.
"""

from typing import Literal

import msgspec

Shape = tuple[int | None, ...]
"""A shape without the batch: features `(n,)`, sequence `(length or None, n)`, image `(channels, height, width)`."""

Function = Literal["relu", "gelu", "silu", "tanh", "sigmoid"]
FirstInput = tuple[int, ...]


class Op(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="op"):
    """What all operations share."""

    of: FirstInput = (0,)


class Linear(Op, frozen=True, tag="linear"):
    """Map the last axis to `out` values; features and sequences."""

    out: int
    bias: bool = True


class LowRankLinear(Op, frozen=True, tag="low_rank_linear"):
    """Map the last axis to `out` values through `rank` values: W = B A, the bias on B (arXiv:2106.09685)."""

    out: int
    rank: int
    bias: bool = True


class Conv(Op, frozen=True, tag="conv"):
    """Convolve an image, or a sequence along its positions; a sequence keeps its length (stride 1, padding is worked out)."""

    out: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    bias: bool = True
    causal: bool = True


class DepthwiseConv(Op, frozen=True, tag="depthwise_conv"):
    """Convolve each channel by itself; as `Conv` otherwise."""

    kernel: int
    stride: int = 1
    padding: int = 0
    bias: bool = True
    causal: bool = True


class Norm(Op, frozen=True, tag="norm"):
    """Normalise: `layer` and `rms` over the last axis (`layer` over all of an image), `batch` and `group` over channels.

    A sequence has layer and rms only: the others would mix positions, or samples, of different length.
    """

    kind: Literal["layer", "batch", "group", "rms"]
    groups: int = 1


class Attention(Op, frozen=True, tag="attention"):
    """Attend over the positions of a sequence: `heads` of `width` values each, then a linear map to `out` (arXiv:1706.03762)."""

    out: int
    heads: int
    width: int
    causal: bool = True


class Mlp(Op, frozen=True, tag="mlp"):
    """Map to `hidden` values, apply `function`, map to `out`; on an image at each pixel (1x1 convolutions)."""

    out: int
    hidden: int
    function: Function = "relu"


class Activation(Op, frozen=True, tag="activation"):
    """Apply a function to every value."""

    function: Function = "relu"


class Gate(Op, frozen=True, tag="gate"):
    """Multiply the first input by sigmoid(W x + b) of the last one; on an image x is its mean over pixels (arXiv:1709.01507)."""


class Residual(Op, frozen=True, tag="residual"):
    """Add two values of one shape."""

    of: FirstInput = (0, 0)


class Resize(Op, frozen=True, tag="resize"):
    """Bring an image to another size: averages where it shrinks, nearest pixels where it grows."""

    height: int
    width: int


class Average(Op, frozen=True, tag="average"):
    """Average the pixels of an image, or the positions of a sequence, to features."""


class Reshape(Op, frozen=True, tag="reshape"):
    """See the values of an image as features, or of features as an image."""

    shape: tuple[int, ...]


Node = (
    Linear
    | LowRankLinear
    | Conv
    | DepthwiseConv
    | Norm
    | Attention
    | Mlp
    | Activation
    | Gate
    | Residual
    | Resize
    | Average
    | Reshape
)
