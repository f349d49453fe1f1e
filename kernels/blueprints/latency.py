"""How long a blueprint will take on this machine: a model per operation, fitted to a short measurement.

`calibrate` times single operations at sizes spread over what small networks use. For each operation the time is a sum of
three parts (a call, the operations, the values moved), times a correction that is interpolated in the logarithms of the
sizes (kernel ridge regression). A blueprint takes the sum over its operations, less the call that they share, times what
whole blueprints of its kind were found to take of such sums: after one another, operations find other caches than alone.

It holds for one batch, one device and one number of threads, which the model remembers.
"""

import itertools
import math
import random
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from .blueprint import Blueprint, kind_of
from .costs import elements, fixed, flops, node_flops, node_params
from .errors import BlueprintError, UnfitBlueprint
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
from .probes import composed, operations
from .shape_rules import after, channels_of, grows, shapes

KINDS = ("features", "sequence", "image")
_WIDTH = 1.8  # of the interpolation, in natural logarithms of a size
_RIDGE = 0.15  # how much of a measurement's scatter is noise
_LANES = 16  # values of the widest vector register
_HOLD = 2.0  # how much evidence it takes to correct a sum: as many blueprints with nothing to correct
_LARGEST = 3e8  # operations of a measured pass: what is above is extrapolated

Floats = NDArray[np.float64]


class Fit(msgspec.Struct, frozen=True):
    """The model of one operation."""

    parts: list[float]  # ns of a call, of an operation, of a value moved
    sizes: list[list[float]]  # logarithms, a row a measured point
    weights: list[float]  # of the correction, a number a point
    centre: float

    def predict(self, sizes: Sequence[float], work: float, moved: float) -> float:
        """Return nanoseconds."""
        base = self.parts[0] + self.parts[1] * work + self.parts[2] * moved
        near = _nearness(np.array([sizes]), np.array(self.sizes))
        correction = float((near @ np.array(self.weights))[0]) + self.centre
        return base * math.exp(max(-1.5, min(1.5, correction)))


class LatencyModel(msgspec.Struct, frozen=True, kw_only=True):
    """What was fitted on one machine; `encode` and `decode` keep it for another day."""

    batch: int
    device: str
    threads: int
    call_ns: float  # what a module costs that does nothing
    fits: dict[str, Fit]
    wholes: dict[str, list[float]] = {}  # by kind: the correction of a sum, by nothing, its logarithm, its operations

    def predict(self, blueprint: Blueprint, *, length: int | None = None) -> int:
        """Return the expected nanoseconds of a forward pass without gradients.

        Raises:
            UnfitBlueprint: an operation was not calibrated, or the length is open and was not given.
        """
        total, terms = self._sum(blueprint, length)
        correction = sum(a * b for a, b in zip(self.wholes.get(kind_of(blueprint.inputs), ()), terms, strict=False))
        return max(1, round(total * math.exp(max(-0.7, min(0.7, correction)))))

    def _sum(self, blueprint: Blueprint, length: int | None) -> tuple[float, list[float]]:
        """Return the nanoseconds of all operations by themselves, and what a correction of that goes by."""
        found = [fixed(shape, length, blueprint) for shape in shapes(blueprint)]
        total = self.call_ns
        for node in blueprint.nodes:
            given = [found[place] for place in node.of]
            for sign, part, seen in _parts(node, given):
                name = _name(part, seen)
                if name not in self.fits:
                    raise UnfitBlueprint(
                        f"blueprint {blueprint.name}: {name} was not calibrated: name its kind in calibrate()"
                    )
                took = self.fits[name].predict(*_measures(part, seen, self.batch))
                total += sign * max(0.0, took - self.call_ns)
        return total, [1.0, math.log(max(total, 1.0) / 1e5), len(blueprint.nodes) / 4 - 1]

    def encode(self) -> bytes:
        """Return the model as JSON."""
        return msgspec.json.encode(self)

    @staticmethod
    def decode(data: bytes) -> "LatencyModel":
        """Return the model that `encode` wrote.

        Raises:
            BlueprintError: the bytes are none.
        """
        try:
            return msgspec.json.decode(data, type=LatencyModel)
        except msgspec.DecodeError as error:
            raise BlueprintError(
                f"these bytes are no latency model: {str(error)[:200]}; calibrate() makes one"
            ) from None


def calibrate(
    kinds: Sequence[str] = KINDS,
    *,
    batch: int = 64,
    device: str = "cpu",
    seed: int = 0,
    density: float = 1.0,
    rounds: int = 7,
) -> LatencyModel:
    """Measure single operations on this machine and fit the model; some seconds a kind of shape.

    Args:
        kinds: Which shapes to cover: features, sequence, image.
        batch: Samples in the passes that will be predicted.
        device: Where they run.
        seed: Of the sizes that are tried.
        density: Factor on how many sizes are tried.
        rounds: How often each is timed; more, on a machine that does other things as well.
    """
    import torch

    from .building import drawn
    from .measure import measure_latencies

    tried: list[tuple[str, list[float], float, float]] = []
    modules: list[tuple[torch.nn.Module, Shape]] = [(torch.nn.Sequential(), (8,))]
    rng = random.Random(seed)  # noqa: S311 sizes to try are no secret
    for node, given in operations(kinds, rng, density):
        sizes, work, moved = _measures(node, given, batch)
        if work <= _LARGEST and moved <= _LARGEST / 20:
            tried.append((_name(node, given), sizes, work, moved))
            probe = Blueprint(name="probe", inputs=given[0], nodes=(node,), output=1)
            modules.append((drawn(probe, 0).to(device), given[0]))
    wholes = [one for one in composed(kinds, rng, density) if flops(one) * batch <= _LARGEST]
    modules += [(drawn(one, 0).to(device), one.inputs) for one in wholes]
    empty, *times = measure_latencies(modules, batch=batch, device=device, rounds=rounds, block_ns=200_000)
    points: dict[str, list[tuple[list[float], float, float, float]]] = {}
    for (name, sizes, work, moved), took in zip(tried, times[: len(tried)], strict=True):
        points.setdefault(name, []).append((sizes, work, moved, float(took)))
    fits = {name: _fit(rows) for name, rows in points.items()}
    model = LatencyModel(batch=batch, device=device, threads=torch.get_num_threads(), call_ns=float(empty), fits=fits)
    return msgspec.structs.replace(model, wholes=_wholes(model, wholes, times[len(tried) :]))


def _wholes(model: LatencyModel, blueprints: Sequence[Blueprint], times: Sequence[float]) -> dict[str, list[float]]:
    """Fit the correction of each kind to blueprints that were measured as a whole."""
    seen: dict[str, list[tuple[list[float], float]]] = {}
    for blueprint, took in zip(blueprints, times, strict=True):
        total, terms = model._sum(blueprint, None)
        seen.setdefault(kind_of(blueprint.inputs), []).append((terms, math.log(took / total)))
    found = {}
    for kind, rows in seen.items():
        given, left = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
        found[kind] = np.linalg.solve(given.T @ given + _HOLD * np.eye(given.shape[1]), given.T @ left).tolist()
    return found


def _parts(node: Node, given: list[Shape]) -> Iterator[tuple[int, Node, list[Shape]]]:
    """Split an operation into those that are measured by themselves, to be added or taken away.

    Attention is measured from one value to one value; its wider linear maps are added, and those narrow ones taken away.
    """
    shape = given[0]
    image = len(shape) == 3
    match node:
        case Mlp():
            layers: list[Node] = [
                Conv(out=node.hidden, kernel=1) if image else Linear(out=node.hidden),
                Activation(function=node.function),
                Conv(out=node.out, kernel=1) if image else Linear(out=node.out),
            ]
        case LowRankLinear():
            layers = [Linear(out=node.rank, bias=False), Linear(out=node.out)]
        case Attention():
            length, inner = shape[0], node.heads * node.width
            yield 1, Attention(out=1, heads=node.heads, width=node.width, causal=node.causal), [(length, 1)]
            yield 1, Linear(out=3 * inner), [shape]
            yield -1, Linear(out=3 * inner), [(length, 1)]
            yield 1, Linear(out=node.out), [(length, inner)]
            yield -1, Linear(out=1), [(length, inner)]
            return
        case _:
            yield 1, node, given
            return
    for layer in layers:
        yield 1, layer, [shape]
        shape = after(layer, [shape])


def _name(node: Node, given: list[Shape]) -> str:
    """Return which model an operation belongs to."""
    axes = len(given[0])
    tag = str(node.__struct_config__.tag)
    match node:
        case Linear():
            return tag  # rows are rows
        case Norm():
            return f"{tag}.{node.kind}.{axes}"
        case Activation():
            return f"{tag}.{node.function}"
        case Residual() | Reshape():
            return tag
        case Resize():
            return f"{tag}.{'grow' if grows(node, given[0]) else 'shrink'}"
        case Conv() if axes == 3 and node.kernel == 1 and node.stride == 1:
            return f"{tag}.1x1"
        case _:
            return f"{tag}.{axes}"


def _measures(node: Node, given: list[Shape], batch: int) -> tuple[list[float], float, float]:
    """Return the logarithms of the sizes that count, the operations, and the values moved, all for a batch."""
    result = after(node, given)
    entering, leaving = channels_of(given[0]), channels_of(result)
    places = elements(result) // leaving
    work = float(batch * node_flops(node, given, result))
    moved = float(batch * (elements(given[0]) + elements(result)) + node_params(node, given))
    values = batch * elements(given[0])
    match node:
        case Linear():
            sizes: list[float] = [batch * places, entering, leaving]
        case Conv():
            sizes = [places, entering / node.groups, leaving, node.kernel, node.stride, *_aligned(entering, leaving)]
        case DepthwiseConv():
            sizes = [places, entering, node.kernel, node.stride]
        case Norm():
            sizes = [values / entering, entering]
        case Attention():
            sizes = [places, node.heads, node.width]
        case Gate():
            sizes = [values / entering, entering]
        case Resize():
            sizes = [values, batch * elements(result)]
            window = [math.ceil(long / short) + 1 for long, short in zip(_sides(given[0]), _sides(result), strict=True)]
            work = float(batch * elements(result) * window[0] * window[1])
        case Average():
            sizes = [values / entering, entering]
        case _:
            sizes = [values]
    return [math.log(size) for size in sizes], work, moved


def _aligned(*channels: int) -> list[float]:
    """Return how well numbers of channels fill a vector register: convolutions have other routines for those that do."""
    return [float(math.gcd(count, _LANES)) for count in channels]


def _sides(shape: Shape) -> list[int]:
    return [extent or 1 for extent in shape[1:]]


def _fit(rows: Sequence[tuple[list[float], float, float, float]]) -> Fit:
    """Fit the three parts to relative errors, then the correction to what they leave."""
    sizes = np.array([row[0] for row in rows])
    took = np.array([row[3] for row in rows])
    terms = np.array([[1.0, row[1], row[2]] for row in rows])
    parts = _positive(terms / took[:, None])
    left = np.log(took / np.maximum(terms @ parts, 1.0))
    centre = float(left.mean())
    near = _nearness(sizes, sizes)
    weights = np.linalg.solve(near + _RIDGE * np.eye(len(rows)), left - centre)
    return Fit(parts.tolist(), sizes.tolist(), weights.tolist(), centre)


def _positive(terms: Floats) -> Floats:
    """Return the coefficients, none below zero, that bring every row nearest to 1: the best over all subsets of columns."""
    best, least = np.zeros(terms.shape[1]), math.inf
    scale = np.maximum(np.abs(terms).max(axis=0), 1e-300)
    for count in range(1, terms.shape[1] + 1):
        for chosen in itertools.combinations(range(terms.shape[1]), count):
            columns = list(chosen)
            found, *_ = np.linalg.lstsq(terms[:, columns] / scale[columns], np.ones(len(terms)), rcond=None)
            if (found < 0).any():
                continue
            error = float(((terms[:, columns] / scale[columns] @ found - 1) ** 2).sum())
            if error < least:
                least = error
                best = np.zeros(terms.shape[1])
                best[columns] = found / scale[columns]
    return best


def _nearness(these: Floats, those: Floats) -> Floats:
    apart = ((these[:, None, :] - those[None, :, :]) ** 2).sum(axis=2)
    near: Floats = np.exp(-apart / (2 * _WIDTH**2))
    return near
