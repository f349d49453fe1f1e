"""The policies that come with Morphogen, one a file; the learned one has a folder of its own beside this one."""

from .bandit import Bandit
from .fixed import Fixed, Planned
from .heuristic import Heuristic
from .nothing import Nothing
from .random import Random

__all__ = ["Bandit", "Fixed", "Heuristic", "Nothing", "Planned", "Random"]
