"""The projections that are always there, one file each."""

from ..facts.knowledge import Knowledge
from ..projection import Projection
from .artifacts import Artifacts
from .blueprints import Blueprints
from .commands import Commands
from .crystals import Crystals
from .dead_letters import DeadLetters
from .decisions import Decisions
from .dispatches import Dispatches
from .events import Events
from .executions import Executions
from .frames import Frames
from .kv import Kv
from .layer_health import LayerHealthRows
from .log_lines import LogLines
from .loops import Loops
from .metrics import MetricRows
from .policies import Policies
from .producers import Producers
from .runs import Runs
from .slot_faults import SlotFaults
from .slots import Slots
from .sweeps import Sweeps

BUILTIN: tuple[type[Projection], ...] = (
    Frames,
    MetricRows,
    LayerHealthRows,
    LogLines,
    Artifacts,
    Runs,
    Commands,
    DeadLetters,
    Producers,
    Loops,
    Sweeps,
    Slots,
    SlotFaults,
    Decisions,
    Blueprints,
    Policies,
    Kv,
    Executions,
    Dispatches,
    Crystals,
    Knowledge,
)
"""All built-in projections but `events`, which is made last: it must know whose tables hold which bodies."""

__all__ = ["BUILTIN", "Events"]
