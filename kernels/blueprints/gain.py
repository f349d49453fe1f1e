"""What a blueprint may bring: learned from outcomes where there are some, a stated guess to rank by where there are none."""

import math
from collections.abc import Collection, Sequence

import msgspec
import numpy as np

from .blueprint import Blueprint
from .costs import elements, flops, params
from .errors import BlueprintError
from .ops import Activation, Attention, Conv, DepthwiseConv, Gate, Linear, LowRankLinear, Mlp, Norm
from .shape_rules import channels_of, shapes

FEATURES = (
    "params", "flops", "width", "depth", "nonlinear", "rectified", "norm", "gate", "attention", "convolution", "entering", "leaving",
)  # fmt: skip
LEAST = 8  # outcomes, below which no gain is predicted
_RIDGE = 1.0


class GainModel(msgspec.Struct, frozen=True, kw_only=True):
    """A ridge regression from what a blueprint is to what it brought; fit it on outcomes, keep it by `encode`."""

    lows: list[float]  # of what was seen: beyond it nothing is known, so predictions stay at its edge
    highs: list[float]
    means: list[float]
    scales: list[float]
    weights: list[float]
    base: float
    outcomes: int

    @staticmethod
    def fit(outcomes: Sequence[tuple[Blueprint, float]]) -> "GainModel":
        """Return a model of measured gains.

        Raises:
            BlueprintError: there are fewer than `LEAST`, or one is not finite.
        """
        if len(outcomes) < LEAST:
            raise BlueprintError(f"{len(outcomes)} outcomes are too few to predict gains: wait for {LEAST}")
        gains = np.array([gain for _, gain in outcomes])
        if not np.isfinite(gains).all():
            raise BlueprintError("a gain is not finite: leave out what was not measured")
        rows = np.array([describe(blueprint) for blueprint, _ in outcomes])
        means, scales = rows.mean(axis=0), rows.std(axis=0)
        scales[scales < 1e-9] = 1.0
        scaled = (rows - means) / scales
        weights = np.linalg.solve(scaled.T @ scaled + _RIDGE * np.eye(len(FEATURES)), scaled.T @ (gains - gains.mean()))
        return GainModel(
            lows=rows.min(axis=0).tolist(),
            highs=rows.max(axis=0).tolist(),
            means=means.tolist(),
            scales=scales.tolist(),
            weights=weights.tolist(),
            base=float(gains.mean()),
            outcomes=len(outcomes),
        )

    def predict(self, blueprint: Blueprint) -> float:
        """Return the gain to expect, in the unit of the outcomes."""
        told = np.clip(np.array(describe(blueprint)), np.array(self.lows), np.array(self.highs))
        scaled = (told - np.array(self.means)) / np.array(self.scales)
        return self.base + float(scaled @ np.array(self.weights))

    def encode(self) -> bytes:
        """Return the model as JSON."""
        return msgspec.json.encode(self)

    @staticmethod
    def decode(data: bytes) -> "GainModel":
        """Return the model that `encode` wrote.

        Raises:
            BlueprintError: the bytes are none.
        """
        try:
            found = msgspec.json.decode(data, type=GainModel)
        except msgspec.DecodeError as error:
            raise BlueprintError(f"these bytes are no gain model: {str(error)[:200]}; fit() makes one") from None
        columns = (found.lows, found.highs, found.means, found.scales, found.weights)
        if any(len(column) != len(FEATURES) for column in columns) or 0.0 in found.scales:
            raise BlueprintError(
                f"this gain model does not have the {len(FEATURES)} features of this version: fit it again"
            )
        return found


def describe(blueprint: Blueprint) -> list[float]:
    """Return the numbers that gains are predicted from, in the order of `FEATURES`."""
    found = shapes(blueprint)
    nodes = blueprint.nodes
    functions = [node.function for node in nodes if isinstance(node, Activation | Mlp)]
    return [
        math.log1p(params(blueprint)),
        math.log1p(flops(blueprint, length=16)),
        math.log1p(width(blueprint)),
        float(len(nodes)),
        float(bool(functions) or any(isinstance(node, Attention | Gate) for node in nodes)),
        float("relu" in functions),
        float(any(isinstance(node, Norm) for node in nodes)),
        float(any(isinstance(node, Gate) for node in nodes)),
        float(any(isinstance(node, Attention) for node in nodes)),
        float(any(isinstance(node, Conv | DepthwiseConv) for node in nodes)),
        math.log1p(elements(found[0])),
        math.log1p(elements(found[blueprint.output])),
    ]


def width(blueprint: Blueprint) -> int:
    """Return the widest inner layer: what can pass besides the output itself."""
    found = shapes(blueprint)
    widths = [1]
    for number, node in enumerate(blueprint.nodes, 1):
        match node:
            case Mlp():
                widths.append(node.hidden)
            case LowRankLinear():
                widths.append(node.rank)
            case Attention():
                widths.append(node.heads * node.width)
            case Linear() | Conv() if number != blueprint.output:
                widths.append(channels_of(found[number]))
            case _:
                pass
    return max(widths)


def likeness(blueprint: Blueprint) -> tuple[int, ...]:
    """Return what two blueprints share that are variants of one another: size to a factor of two, and the kinds of parts."""
    told = dict(zip(FEATURES, describe(blueprint), strict=True))
    parts = ("nonlinear", "rectified", "norm", "gate", "attention", "convolution")
    return (params(blueprint).bit_length(), *(int(told[name]) for name in parts))


def guess(blueprint: Blueprint, trouble: Collection[str]) -> float:
    """Return a number to rank by where no outcomes are known; it is not a gain, and has no unit.

    Width with a function in it counts most, since a host that stalls mostly lacks that, up to where it is wide enough; then what answers the trouble:
    norms for values that explode, vanish or died, functions without a flat side for dead units. Costs count against it.
    """
    told = dict(zip(FEATURES, describe(blueprint), strict=True))
    need = 2.0 if {"bottleneck", "plateau"} & set(trouble) else 1.0
    found = shapes(blueprint)
    enough = 64 + 2 * max(channels_of(found[0]), channels_of(found[blueprint.output]))
    score = need * math.log1p(min(width(blueprint), enough)) * (0.25 + 0.75 * told["nonlinear"])
    if {"exploding", "vanishing", "dead"} & set(trouble):
        score += 1.5 * told["norm"]
    if "dead" in trouble:
        score -= 1.0 * told["rectified"]
    if "exploding" in trouble:
        score += 0.5 * told["gate"] - 0.1 * told["depth"]
    return score - 0.3 * told["params"] - 0.1 * told["flops"] - 0.02 * told["depth"]
