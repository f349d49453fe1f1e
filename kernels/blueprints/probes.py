"""What a calibration times: operations by themselves, at sizes drawn evenly in logarithms, and blueprints made of them."""

import math
import random
from collections.abc import Callable, Iterator, Sequence

from .blueprint import Blueprint
from .ops import (
    Activation,
    Attention,
    Average,
    Conv,
    DepthwiseConv,
    Gate,
    Linear,
    Node,
    Norm,
    Reshape,
    Residual,
    Resize,
    Shape,
)
from .templates import templates


def composed(kinds: Sequence[str], rng: random.Random, density: float) -> Iterator[Blueprint]:
    """Yield whole blueprints at sites that are drawn: their operations run after one another, as none does by itself."""

    def size(low: int, high: int) -> int:
        return round(math.exp(rng.uniform(math.log(low), math.log(high))))

    def site(kind: str) -> tuple[Shape, Shape]:
        if kind == "features":
            return (size(2, 256),), (size(2, 256),)
        if kind == "sequence":
            length = size(4, 64)
            return (length, size(8, 128)), (length, size(8, 128))
        side, stride = size(6, 16), rng.choice((1, 1, 2))
        return (size(2, 48), side, side), (size(4, 48), math.ceil(side / stride), math.ceil(side / stride))

    for kind in kinds:
        for _ in range(max(3, round(12 * density))):
            known = templates(*site(kind))
            yield from rng.sample(known, min(3, len(known)))


def operations(kinds: Sequence[str], rng: random.Random, density: float) -> Iterator[tuple[Node, list[Shape]]]:
    """Yield operations and shapes that spread over what small networks use."""

    def size(low: int, high: int) -> int:
        return round(math.exp(rng.uniform(math.log(low), math.log(high))))

    def times(count: int) -> range:
        return range(max(6, round(count * density)))

    def features() -> Shape:
        return (size(1, 512),)

    def sequence() -> Shape:
        return (size(4, 128), size(2, 256))

    def image() -> Shape:
        side = size(2, 32)
        return (size(1, 96), side, side)

    lasting: list[Callable[[], Shape]] = [
        {"features": features, "sequence": sequence, "image": image}[kind] for kind in kinds
    ]
    for shaped in lasting:
        for _ in times(12):
            for function in ("relu", "gelu", "silu", "tanh", "sigmoid"):
                yield Activation(function=function), [shaped()]
        for _ in times(14):
            yield Residual(of=(0, 0)), [shape := shaped(), shape]
            yield Gate(), [shaped()]
    for shaped in lasting if "image" not in kinds else [features, *lasting]:
        if shaped is image:
            continue
        for corner in ((1, 1), (1, 512), (512, 1), (512, 512)) if shaped is features else ():
            yield Linear(out=corner[1]), [(corner[0],)]
        for _ in times(60):
            yield Linear(out=size(1, 512)), [shaped()]
        for _ in times(12):
            yield Linear(out=rng.choice((1, 2, 4))), [shaped()]
            yield Linear(out=size(1, 512)), [(*shaped()[:-1], rng.choice((1, 2, 4)))]
        for _ in times(14):
            yield Norm(kind="layer"), [shaped()]
            yield Norm(kind="rms"), [shaped()]
    if "features" in kinds:
        for _ in times(12):
            yield Norm(kind="batch"), [features()]
            channels = size(1, 64) * 4
            yield Norm(kind="group", groups=4), [(channels,)]
    if "sequence" in kinds:
        for _ in times(40):
            yield Attention(out=1, heads=rng.choice((1, 2, 4, 8)), width=rng.choice((8, 16, 32))), [(size(4, 128), 1)]
        for _ in times(40):
            yield Conv(out=size(2, 256), kernel=rng.choice((2, 3, 5))), [sequence()]
        for _ in times(25):
            yield DepthwiseConv(kernel=rng.choice((2, 3, 5))), [sequence()]
        for _ in times(12):
            yield Average(), [sequence()]
    if "image" in kinds:
        yield from _images(rng, times, size, image)


def _images(
    rng: random.Random, times: Callable[[int], range], size: Callable[[int, int], int], image: Callable[[], Shape]
) -> Iterator[tuple[Node, list[Shape]]]:
    def planes(most: int) -> int:
        """Draw a number of channels: every second one as people choose them, in eights."""
        return size(1, most) if rng.random() < 0.5 else 8 * size(1, most // 8)

    for _ in times(60):
        yield Conv(out=planes(256), kernel=1), [(planes(256), side := size(2, 24), side)]
    for _ in times(100):
        kernel, stride = rng.choice((3, 3, 3, 5)), rng.choice((1, 1, 2))
        yield (
            Conv(out=planes(256), kernel=kernel, stride=stride, padding=kernel // 2),
            [(planes(96), side := size(4, 24), side)],
        )
    for _ in times(40):
        kernel, stride = rng.choice((3, 3, 5)), rng.choice((1, 1, 2))
        yield (
            DepthwiseConv(kernel=kernel, stride=stride, padding=kernel // 2),
            [(size(1, 96), side := size(4, 32), side)],
        )
    for _ in times(16):
        yield Norm(kind="layer"), [image()]
        yield Norm(kind="batch"), [image()]
        side = size(2, 32)
        yield Norm(kind="group", groups=4), [(4 * size(1, 24), side, side)]
        yield Average(), [image()]
    for _ in times(40):
        large = size(4, 40)
        side, depth = max(1, round(large * rng.uniform(0.2, 0.95))), size(1, 64)
        yield Resize(height=side, width=side), [(depth, large, large)]
        yield Resize(height=large, width=large), [(depth, side, side)]
    for _ in times(6):
        channels, height, width = image()
        assert channels is not None
        assert height is not None
        assert width is not None
        yield Reshape(shape=(channels * height * width,)), [(channels, height, width)]
