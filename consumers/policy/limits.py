"""What a run may grow: the part of `adaptation.started`'s config that the policy side reads.

    config = {
        "limits": {...},                 # `Limits`, by name
        "menu": {site: [{...}, ...]},    # `Dish`, by name: what may be germinated at each site
        "edges": [[from, to], ...],      # dataflow between layers by name; without it the layers follow each other
        "reward": {...},                 # `Weights`, by name
    }

All of it is read leniently: what is missing has its default, what is unknown is left alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from .errors import PolicyError

RAMPS = ("linear", "cosine", "sigmoid")
LONGEST_RAMP = 1 << 40  # optimizer steps
MOST = (1 << 63) - 1  # that the log can hold


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of growth. Counts are seeds, times are epochs, `None` is no bound. Held by the mask and by the guards."""

    max_active: int = 1  # seeds that are not judged yet
    max_fossilized: int | None = 2
    max_params: int | None = None  # of all that has grown
    max_flops: int | None = None  # of one forward pass of one sample through all that has grown
    cooldown: int = 2  # from one germination, prune or fossilization to the next germination
    earliest: int = 1  # the first epoch after which anything may be germinated
    horizon: int | None = None  # the number of epochs that the run will have
    last_call: int = 0  # no germination when fewer epochs than this are left
    min_training: int = 3  # in stage training before it may be blended
    min_holding: int = 1  # in stage holding before it may be judged
    alphas: tuple[float, ...] = ()  # that `set_alpha` offers while a seed is blending or holding
    ramp: str = "linear"  # linear | cosine | sigmoid, for `set_alpha` and for blending
    ramp_steps: int = 0  # optimizer steps of a ramp
    min_contribution: float = 0.0  # in loss; a seed must do better to be fossilized
    explosion: float = 3.0  # times the best validation loss of the last 20 epochs; nothing grows above it
    calm: int = 2  # epochs without growth after a failure or a rollback
    max_uncertainty: float | None = None  # of a proposal; what a policy does not tell is not held against it


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """How much each term counts; in the config of a run, and with it in the log."""

    gain: float = 1.0
    rent: float = 0.005  # for as many parameters as the host has, in doublings of its size
    latency: float = 0.02  # for each doubling of the time of a forward pass
    churn: float = 0.01  # for a pruned seed, and for each move of alpha after the first
    failure: float = 0.1  # for each time that the seed had to be cut off
    rollback: float = 0.5  # for each time that the host had to be restored because of it
    harm: float = 1.0  # times a gain below zero


def checked(limits: Limits) -> Limits:
    """Return limits that a new run can be held to. Raises PolicyError naming the one that makes no sense.

    Limits that stand in a log are read as they are.
    """
    for name in limits.__struct_fields__:
        value = getattr(limits, name)
        wrong = None
        if isinstance(value, float) and math.isnan(value):
            wrong = "a number"
        elif name == "min_contribution" and not math.isfinite(value):
            wrong = "a finite number"
        elif isinstance(value, int | float) and name != "min_contribution" and value < 0:
            wrong = "0 or more"
        elif isinstance(value, int) and value > MOST:
            wrong = f"{MOST} at most"
        elif name == "explosion" and value == 0:
            wrong = "above 0"
        elif name == "ramp" and value not in RAMPS:
            wrong = f"one of {', '.join(RAMPS)}"
        elif name == "ramp_steps" and value > LONGEST_RAMP:
            wrong = f"{LONGEST_RAMP} at most"
        elif name == "alphas" and not all(0.0 <= alpha <= 1.0 for alpha in value):
            wrong = "from 0 to 1 each"
        if wrong is not None:
            raise PolicyError(f"budget: {name} is {wrong}, not {value!r:.100}")
    return limits


def checked_weights(weights: Weights) -> Weights:
    """Return weights of rewards that are finite numbers, 0 or more. Raises PolicyError naming the one that is not."""
    for name in weights.__struct_fields__:
        value = getattr(weights, name)
        if not 0 <= value < math.inf:
            raise PolicyError(f"reward: {name} is a finite number, 0 or more, not {value}")
    return weights


class Dish(msgspec.Struct, frozen=True, kw_only=True):
    """One blueprint of the menu at a site: its name, and what it costs there."""

    name: str
    params: int = 0
    flops: int | None = None
    latency_ns: int | None = None
    address: str | None = None  # content address


@dataclass(frozen=True, eq=False)
class Setting:
    """All that the policy side knows of a run before its first epoch."""

    limits: Limits
    menu: Mapping[str, tuple[Dish, ...]]
    edges: tuple[tuple[str, str], ...]
    reward: Weights

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Setting":
        """Read a config. Raises PolicyError naming the key that does not fit."""
        menu = _read(config, "menu", dict[str, list[Dish]], {})
        return cls(
            limits=_read(config, "limits", Limits, Limits()),
            menu={site: tuple(dishes) for site, dishes in menu.items()},
            edges=tuple(_read(config, "edges", list[tuple[str, str]], [])),
            reward=_read(config, "reward", Weights, Weights()),
        )


def config_of(
    limits: Limits,
    menu: Mapping[str, Sequence[Dish]],
    edges: Sequence[tuple[str, str]] = (),
    reward: Weights | Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Return the config that `Setting.of` reads back, as plain values."""
    return {
        "limits": msgspec.to_builtins(limits),
        "menu": {site: [msgspec.to_builtins(dish) for dish in dishes] for site, dishes in menu.items()},
        "edges": [list(edge) for edge in edges],
        "reward": msgspec.to_builtins(reward or Weights()),
    }


_T = TypeVar("_T")


def _read(config: Mapping[str, Any], key: str, kind: type[_T], default: _T) -> _T:
    if config.get(key) is None:
        return default
    try:
        return msgspec.convert(config[key], kind, strict=False)
    except msgspec.ValidationError as error:
        raise PolicyError(f"adaptation config: {key!r} does not fit: {error}") from error
