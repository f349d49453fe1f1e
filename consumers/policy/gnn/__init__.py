"""The learned policy: a graph network that reads the health of a run, trained by PPO and by what germinations were worth.

Deciding needs NumPy, and safetensors for a checkpoint; training needs the extra `morphogen[policy]`. Importing this
imports neither torch nor PyTorch Geometric: a name is loaded when it is used.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.faces import lazily

from .brain import Brain, Schooling
from .learned import Learned
from .settings import Settings

if TYPE_CHECKING:
    from .episode import Episode
    from .training import Environment, Trainer

__all__ = ["Brain", "Environment", "Episode", "Learned", "LearningError", "Schooling", "Settings", "Trainer"]

_HOMES = {"Episode": "episode", "Trainer": "training", "Environment": "training", "LearningError": "errors"}

__getattr__ = lazily(__name__, _HOMES, torch="policy")
