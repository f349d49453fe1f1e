"""The gauntlet: what a draft must pass before it is called for anybody.

parse, grammar, types, sandboxed import, replay of every held-out execution, properties; then runs beside the live mode, and
promotion on a confidence bound. Each stage is an event with its evidence, and the first that fails is the last. Knows
drafts and executions; knows nothing of who drafted, and calls no real tool.
"""

from .config import GauntletConfig
from .promoting import promoted, shadowed
from .running import run_gauntlet
from .stage import Stage
from .verdict import Verdict

__all__ = ["GauntletConfig", "Stage", "Verdict", "promoted", "run_gauntlet", "shadowed"]
