"""From the state to the graph that a policy is shown."""

import math
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from morphogen.schemas import SIGNALS, Names

from .legal import epochs_left, mask
from .observe import EPOCHS, SEED_SIGNALS, SlotState, State, epoch_means, newest_layers
from .protocol import RUN, STAGES, Observation

if TYPE_CHECKING:
    import numpy.typing as npt

    Wide: TypeAlias = npt.NDArray[np.float64]

WINDOWS = (5, EPOCHS)  # epochs
_TEMPORAL = ("last", *(f"{kind}{window}" for window in WINDOWS for kind in ("mean", "slope")))
_CURVES = ("train_loss", "val_loss", "val_accuracy")
LAYER_FEATURES = (*(f"{signal}.{name}" for signal in SIGNALS for name in _TEMPORAL), "depth")
SLOT_FEATURES = (
    *(f"stage.{stage}" for stage in STAGES),
    "alpha", "alpha_left", "epochs_in_stage",
    *(f"seed.{signal}" for signal in SEED_SIGNALS),
    "contribution", "accuracy_gain", "contribution_age",
    "seed_params", "in_size", "out_size", "site_params", "germinated", "pruned", "failures",
)  # fmt: skip
RUN_FEATURES = (
    "epoch", "progress", "epochs_left",
    *(f"{curve}.{name}" for curve in _CURVES for name in _TEMPORAL),
    "best_loss", "epochs_since_best", "plateau", "plateau_epochs", "learning_rate",
    "host_params", "grown_params", "params_left", "active", "active_left", "fossilized", "fossilized_left",
    "cooldown_left", "epochs_since_trouble", "rollbacks", "total_failures",
)  # fmt: skip
FEATURES = Names((*LAYER_FEATURES, *SLOT_FEATURES, *RUN_FEATURES))
_COLUMN = {name: at for at, name in enumerate(FEATURES)}
_STAGES = {stage: tuple(float(other == stage) for other in STAGES) for stage in STAGES}
_SLOTS = [_COLUMN[name] for name in SLOT_FEATURES]
_NAN = math.nan
_NO_HEALTH = (_NAN,) * len(SEED_SIGNALS)
_UNSIZED = (_NAN,) * 3
_UNKNOWN = (0.0,) * len(STAGES)
_RUN = [_COLUMN[name] for name in RUN_FEATURES]


@np.errstate(over="ignore", invalid="ignore")  # what float32 cannot hold is infinite
def observe(state: State) -> Observation:
    """Return what a policy is shown after the last measured epoch. The same state gives the same bits."""
    means = epoch_means(state)
    layers, slots = _layer_names(state), tuple(state.slots)
    nodes, kinds, edges = _graph(layers, slots, tuple(state.slots[slot].site for slot in slots), state.setting.edges)
    features = np.full((len(nodes), len(FEATURES)), np.nan, np.float32)
    features[0, _RUN] = np.array(_run(state), np.float64)
    _fill_layers(features, state, layers, means)
    static = state.sizes
    if slots:
        rows = [_slot(state, slot, static.get(slot.site, _UNSIZED)) for slot in state.slots.values()]
        features[1 + len(layers) :, _SLOTS] = np.array(rows, np.float64)
    offered, legal, params = mask(state)
    features.setflags(write=False)
    return Observation(state.epoch, nodes, kinds, FEATURES, features, edges, offered, np.array(legal, np.bool_), params)


def _layer_names(state: State) -> tuple[str, ...]:
    """Return the measured layers in their order, and after them the sites that no health was measured of."""
    measured = newest_layers(state)
    known = frozenset(measured)
    return (*measured, *(site.site for site in state.sites if site.site not in known))


@lru_cache(maxsize=64)
def _graph(
    layers: tuple[str, ...], slots: tuple[str, ...], sites: tuple[str, ...], given: tuple[tuple[str, str], ...]
) -> "tuple[Names, Names, npt.NDArray[np.int64]]":
    place = {name: at for at, name in enumerate(layers, 1)}
    pairs = [(place[one], place[other]) for one, other in given if one in place and other in place]
    if not pairs:
        pairs = list(zip(range(1, len(layers)), range(2, len(layers) + 1), strict=True))
    for row, site in enumerate(sites, 1 + len(layers)):
        if site in place:
            pairs += [(place[site], row), (row, place[site])]
    edges = np.array(pairs, np.int64).reshape(-1, 2).T.copy()
    edges.setflags(write=False)
    kinds = Names(("global", *("layer" for _ in layers), *("slot" for _ in slots)))
    return Names((RUN, *layers, *slots)), kinds, edges


def _fill_layers(
    features: "npt.NDArray[np.float32]",
    state: State,
    layers: tuple[str, ...],
    means: "tuple[npt.NDArray[np.float32], ...]",
) -> None:
    count = len(layers)
    if count:
        features[1 : 1 + count, _COLUMN["depth"]] = np.arange(count, dtype=np.float64) / max(1, count - 1)
    if means and means[-1].shape[0]:
        measured = means[-1].shape[0]
        summary = _temporal(np.stack(means).astype(np.float64))  # (5, layers, signals)
        features[1 : 1 + measured, : len(SIGNALS) * len(_TEMPORAL)] = np.moveaxis(summary, 0, 2).reshape(measured, -1)


def _temporal(series: "Wide") -> "Wide":
    """Return last, and mean and slope an epoch over each window, along axis 0; NaN where there is nothing to go by.

    Where all of a window was measured, each is one sum of products; else every place has sums of its own.
    """
    measured = np.isfinite(series)
    parts = [series[-1]]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for window in WINDOWS:
            parts += _line(series[-window:], measured[-window:])
    return np.stack(parts)


def _line(recent: "Wide", known: "npt.NDArray[np.bool_]") -> "tuple[Wide, Wide]":
    """Return the mean and the slope of the least-squares line of each place."""
    at = np.arange(len(recent), dtype=np.float64).reshape(-1, *([1] * (recent.ndim - 1)))
    if known.all():
        centred = at - (len(recent) - 1) / 2
        return recent.sum(axis=0) / len(recent), (centred * recent).sum(axis=0) / (centred * centred).sum()
    counts = known.sum(axis=0)
    values = np.where(known, recent, 0.0)
    mean = values.sum(axis=0) / counts
    centre = np.where(known, at, 0.0).sum(axis=0) / counts
    spread = np.where(known, (at - centre) ** 2, 0.0).sum(axis=0)
    slope = np.where(known, (at - centre) * (values - mean), 0.0).sum(axis=0) / spread
    return mean, np.where(counts >= 2, slope, np.nan)


def _run(state: State) -> list[float | None]:
    limits = state.setting.limits
    left = epochs_left(state)
    newest = state.epochs[-1] if state.epochs else None
    curves = np.array(
        [[getattr(epoch, curve) for curve in _CURVES] for epoch in state.epochs] or [[None] * 3], np.float64
    )
    grown, _ = state.grown
    since = None if state.changed is None else state.epoch - state.changed
    return [
        float(state.epoch),
        None if limits.horizon is None else (state.epoch + 1) / max(1, limits.horizon),
        left,
        *_temporal(curves).T.reshape(-1).tolist(),
        state.best_loss,
        None if state.best_epoch < 0 else state.epoch - state.best_epoch,
        None if newest is None else float(newest.plateau),
        0 if state.plateau_since is None else state.epoch - state.plateau_since + 1,
        None if newest is None else newest.learning_rate,
        math.log1p(max(0, state.host_params)),
        math.log1p(max(0, grown)),
        None if limits.max_params is None else math.log1p(max(0, limits.max_params - grown)),
        state.active,
        limits.max_active - state.active,
        state.fossilized,
        None if limits.max_fossilized is None else limits.max_fossilized - state.fossilized,
        0 if since is None else max(0, limits.cooldown - since),
        None if state.troubled is None else state.epoch - state.troubled,
        state.rollbacks,
        state.failures,
    ]


def _slot(state: State, slot: SlotState, static: tuple[float, float, float]) -> tuple[float, ...]:
    judged = slot.contribution
    health = slot.health
    return (
        *_STAGES.get(slot.stage, _UNKNOWN),
        slot.alpha,
        0.0 if slot.target is None else slot.target - slot.alpha,
        state.epoch - slot.since,
        *([health.get(signal, _NAN) for signal in SEED_SIGNALS] if health else _NO_HEALTH),
        _NAN if judged is None or judged.loss is None else judged.loss,
        _NAN if judged is None or judged.accuracy is None else judged.accuracy,
        _NAN if judged is None else state.epoch - judged.epoch,
        math.log1p(max(0, slot.params)),
        *static,
        slot.germinated,
        slot.pruned,
        slot.failures,
    )
