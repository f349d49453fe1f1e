"""Goals pursued by loops: what dispatch runs where nothing recorded will do.

    learner = LoopLearner(bus=bus, workspace=Path("."), backend="script", backend_options={"file": "replies.toml"})
    pursued = learner.pursue(request, budget=50_000)

Knows loops, tools and models, and a request by its shape (`Wanted`); knows nothing of how a way was chosen.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.faces import lazily

if TYPE_CHECKING:
    from .acting import acting
    from .forms import guide_of
    from .hands import capabilities_of
    from .learner import GuidedLoop, LoopLearner, Program, Pursued, Wanted
    from .orchestrator import LoopOrchestrator, Part, PartAsked
    from .programs import tools_named

__all__ = [
    "GuidedLoop",
    "LoopLearner",
    "LoopOrchestrator",
    "Part",
    "PartAsked",
    "Program",
    "Pursued",
    "Wanted",
    "acting",
    "capabilities_of",
    "guide_of",
    "tools_named",
]

__getattr__ = lazily(
    __name__,
    {
        "GuidedLoop": "learner", "LoopLearner": "learner", "LoopOrchestrator": "orchestrator", "Part": "orchestrator", "PartAsked": "orchestrator", "Program": "learner",
        "Pursued": "learner", "Wanted": "learner", "acting": "acting", "capabilities_of": "hands", "guide_of": "forms",
        "tools_named": "programs",
    },
)  # fmt: skip
