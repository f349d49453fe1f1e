"""Slots: places in a PyTorch model where it can grow while it trains, and the life of what grows there.

A dormant slot leaves its module untouched. Knows modules, alphas and stages; knows nothing of logs or policies. The table
of stages, the ramps and the gates need nothing but this package; all else needs torch: `pip install 'morphogen[adapt]'`.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.faces import lazily

if TYPE_CHECKING:
    from .blends import BLENDS
    from .counterfactual import Contribution, Evaluation, contribution, evaluation
    from .cutoff import Cutoff
    from .errors import JoinError, LifecycleError, MissingExtra, SiteError, SlotError
    from .fusing import fuse
    from .gates import GATE_OF, GateConfig, GateResult, Measurements, evaluate_gate
    from .latency import latency_share
    from .lifecycle import BLENDED, LEGAL, SEEDED, Stage, refusal
    from .measuring import SeedHealth, health, watch_outputs
    from .optimizer import join, leave
    from .ramps import CURVES, Ramp
    from .restoring import restore
    from .slot import Slot
    from .slots import Slots, adapt

_HOMES = {
    # What a model grows at
    "adapt": "slots", "Slots": "slots", "Slot": "slot",
    # The life of a seed
    "Stage": "lifecycle", "LEGAL": "lifecycle", "SEEDED": "lifecycle", "BLENDED": "lifecycle", "refusal": "lifecycle",
    "Ramp": "ramps", "CURVES": "ramps", "BLENDS": "blends", "Cutoff": "cutoff",
    # Its training
    "join": "optimizer", "leave": "optimizer",
    # What is measured, and asked of it
    "Evaluation": "counterfactual", "Contribution": "counterfactual", "contribution": "counterfactual",
    "evaluation": "counterfactual", "SeedHealth": "measuring", "health": "measuring", "watch_outputs": "measuring",
    "GATE_OF": "gates", "GateConfig": "gates", "GateResult": "gates", "Measurements": "gates",
    "evaluate_gate": "gates", "latency_share": "latency",
    # What remains
    "restore": "restoring", "fuse": "fusing",
    # What is refused
    "SlotError": "errors", "LifecycleError": "errors", "SiteError": "errors", "JoinError": "errors",
    "MissingExtra": "errors",
}  # fmt: skip

__all__ = [
    "BLENDED",
    "BLENDS",
    "CURVES",
    "GATE_OF",
    "LEGAL",
    "SEEDED",
    "Contribution",
    "Cutoff",
    "Evaluation",
    "GateConfig",
    "GateResult",
    "JoinError",
    "LifecycleError",
    "Measurements",
    "MissingExtra",
    "Ramp",
    "SeedHealth",
    "SiteError",
    "Slot",
    "SlotError",
    "Slots",
    "Stage",
    "adapt",
    "contribution",
    "evaluate_gate",
    "evaluation",
    "fuse",
    "health",
    "join",
    "latency_share",
    "leave",
    "refusal",
    "restore",
    "watch_outputs",
]

__getattr__ = lazily(__name__, _HOMES, torch="adapt")
