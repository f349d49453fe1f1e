"""The learned policy: a graph network that reads the health of a run, trained by PPO and by what germinations were worth.

Deciding needs NumPy, and safetensors for a checkpoint; training needs the extra `morphogen[policy]`. Importing this
imports neither torch nor PyTorch Geometric: a name is loaded when it is used.
"""

from typing import TYPE_CHECKING, Any

from .brain import Brain, Schooling
from .learned import Learned
from .settings import Settings

if TYPE_CHECKING:
    from .episode import Episode
    from .training import Environment, Trainer

__all__ = ["Brain", "Environment", "Episode", "Learned", "LearningError", "Schooling", "Settings", "Trainer"]

_HOMES = {"Episode": "episode", "Trainer": "training", "Environment": "training", "LearningError": "errors"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
