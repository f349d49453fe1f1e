"""Dispatch: each request goes the cheapest way that is likely enough to reach its goal, and says why.

    state = read_state(bus)
    with open_diary(settings) as diary:
        dispatcher = Dispatcher(capabilities=caps, state=state, write=diary.tell, crystals=loader, learner=learner)
        done = dispatcher.do("Sum the column price of shop.csv", {"column": "price", "path": "shop.csv"})

The decision is pure (`weigh`, `decide`): state and request in, the event with all alternatives out. It knows families of executions
and the registry of tools; it knows nothing of agent loops but their `run`, and asks no model whether a model is needed.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.faces import lazily

if TYPE_CHECKING:
    from .config import DispatchConfig
    from .decide import decide
    from .diary import open_diary
    from .dispatcher import Dispatcher
    from .embed import Embedder, WordLlama
    from .embed_llama import LlamaEmbedder
    from .errors import DispatchError, MissingExtra
    from .protocol import Act, Done, Guided, Learner, Orchestrator, Request, Result
    from .state import DispatchState, read_state

__all__ = [
    "Act",
    "DispatchConfig",
    "DispatchError",
    "DispatchState",
    "Dispatcher",
    "Done",
    "Embedder",
    "Guided",
    "Learner",
    "LlamaEmbedder",
    "MissingExtra",
    "Orchestrator",
    "Request",
    "Result",
    "WordLlama",
    "decide",
    "open_diary",
    "read_state",
]

__getattr__ = lazily(
    __name__,
    {
        "Act": "protocol",
        "DispatchConfig": "config",
        "DispatchError": "errors",
        "DispatchState": "state",
        "Dispatcher": "dispatcher",
        "Done": "protocol",
        "Embedder": "embed",
        "Guided": "protocol",
        "Learner": "protocol",
        "LlamaEmbedder": "embed_llama",
        "MissingExtra": "errors",
        "Orchestrator": "protocol",
        "Request": "protocol",
        "Result": "protocol",
        "WordLlama": "embed",
        "decide": "decide",
        "open_diary": "diary",
        "read_state": "state",
    },
)
