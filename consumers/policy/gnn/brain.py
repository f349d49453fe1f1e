"""All that a policy has learned, as one value; in a checkpoint it is one safetensors file."""

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from morphogen.schemas import line_of

from ..checkpoint import Checkpoint, save_checkpoint
from ..errors import CheckpointError
from ..features import FEATURES
from .scale import Scale
from .settings import Settings, checked
from .weights import fresh, shapes

if TYPE_CHECKING:
    from .weights import Weights

NAME = "gnn-ppo"
_SCALE = "scale"
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class Schooling(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy was trained on: counts since it was made. An experience is a decision with a choice."""

    experiences: _Count = 0
    outcomes: _Count = 0  # germinations that were judged
    episodes: _Count = 0
    updates: _Count = 0


@dataclass(frozen=True, eq=False)
class Brain:
    """Weights, the scale of what they read (`columns`, by name) and of rewards, and what they were trained on.

    `version` is the sha256 of the checkpoint that this was read from or written to, None where there is none yet.
    """

    settings: Settings
    columns: tuple[str, ...]
    weights: "Weights"
    scale: Scale
    rewards: Scale
    schooling: Schooling = field(default_factory=Schooling)
    version: str | None = None

    @classmethod
    def new(cls, seed: int = 0, *, settings: Settings | None = None, columns: tuple[str, ...] | None = None) -> "Brain":
        """Return one that has learned nothing. The same seed gives the same bits."""
        try:
            settings = checked(settings or Settings())
        except ValueError as error:
            raise CheckpointError(f"policy {NAME}: {error}") from error
        columns = tuple(FEATURES) if columns is None else columns
        weights = fresh(settings, len(columns), seed)
        return cls(settings, columns, weights, Scale.empty(len(columns)), Scale.empty(1))

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Brain":
        """Return what a checkpoint holds. Raises CheckpointError in one line where it does not fit."""
        try:
            settings = checked(checkpoint.state["settings"])
            schooling = msgspec.convert(checkpoint.state["schooling"], Schooling)
            columns = tuple(msgspec.convert(checkpoint.state["columns"], list[str]))
            wanted = dict(shapes(settings, len(columns)))
            for part, size in ((_SCALE, len(columns)), ("rewards", 1)):
                wanted |= {f"{part}.{name}": (size,) for name in ("count", "mean", "squares")}
            given = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
            if given != wanted:
                odd = sorted(set(given.items()) ^ set(wanted.items()), key=str)
                raise ValueError(f"tensor {odd[0][0]} is missing, not known, or of another shape")
            with np.errstate(over="ignore"):  # told below
                weights = {
                    name: checkpoint.tensors[name].astype(np.float32) for name, _ in shapes(settings, len(columns))
                }
            for name, tensor in (checkpoint.tensors | weights).items():
                if not np.isfinite(tensor).all():
                    raise ValueError(f"tensor {name} is not finite")
        except (KeyError, ValueError, ArithmeticError, msgspec.ValidationError) as error:
            raise CheckpointError(
                f"{checkpoint.file}: no checkpoint of {NAME}: {type(error).__name__}: {line_of(error, 120)}"
            ) from error
        tensors = checkpoint.tensors
        scale, rewards = (
            Scale(*(tensors[f"{part}.{name}"].astype(np.float64) for name in ("count", "mean", "squares")))
            for part in (_SCALE, "rewards")
        )
        return cls(settings, columns, weights, scale, rewards, schooling, checkpoint.version)

    def save(self, path: str | os.PathLike[str]) -> "Brain":
        """Write a checkpoint, in one step, and return this with its version. Equal contents give equal bytes."""
        tensors: dict[str, Any] = dict(self.weights)
        for part, scale in ((_SCALE, self.scale), ("rewards", self.rewards)):
            tensors |= {f"{part}.{name}": getattr(scale, name) for name in ("count", "mean", "squares")}
        state = {
            "settings": msgspec.to_builtins(self.settings),
            "schooling": msgspec.to_builtins(self.schooling),
            "columns": list(self.columns),
        }
        return replace(self, version=save_checkpoint(path, NAME, state, tensors))

    @property
    def reward_mean(self) -> float:
        """The mean reward of a germination so far; 0 while too few were judged."""
        return float(self.rewards.standard[0][0])

    @property
    def reward_spread(self) -> float:
        """The standard deviation of the rewards of germinations so far; 1 while too few were judged."""
        return float(self.rewards.standard[1][0])

    @property
    def nothing(self) -> float:
        """What no reward at all is, in standard deviations from the mean of the rewards of germinations."""
        return -self.reward_mean / self.reward_spread
