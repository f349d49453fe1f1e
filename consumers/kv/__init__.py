"""Sessions that outlive their process, and workers that hand them to each other: KV states, tiers, costs, commands.

Stands on `kernels.kv` for the bytes and on `bus` for all that travels. Pure: conversations, prompts, sampling, tiers,
costs. Needs `pip install 'morphogen[llama]'`.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.faces import lazily

if TYPE_CHECKING:
    from .beginning import session
    from .blob_transport import BlobTransport
    from .client import generate, info
    from .continuity import Session
    from .conversation import Conversation, Message
    from .cost import Costs, Decision
    from .errors import ContinuityError, HandoffFailed, NoRoomLeft, SessionBusy, SessionError
    from .options import Options
    from .sampling import Sampling, pick
    from .standing import Loaded
    from .tiers import Item, Move, Shelf
    from .worker import KvWorker

_HOMES = {
    # Sessions
    "session": "beginning", "Session": "continuity", "Loaded": "standing", "Conversation": "conversation",
    "Message": "conversation", "Sampling": "sampling", "pick": "sampling",
    # Workers
    "KvWorker": "worker", "Options": "options", "generate": "client", "info": "client",
    # Where states lie, and what that costs
    "Shelf": "tiers", "Item": "tiers", "Move": "tiers", "Costs": "cost", "Decision": "cost",
    "BlobTransport": "blob_transport",
    # What is refused
    "ContinuityError": "errors", "SessionError": "errors", "SessionBusy": "errors", "HandoffFailed": "errors",
    "NoRoomLeft": "errors",
}  # fmt: skip

__all__ = [
    "BlobTransport",
    "ContinuityError",
    "Conversation",
    "Costs",
    "Decision",
    "HandoffFailed",
    "Item",
    "KvWorker",
    "Loaded",
    "Message",
    "Move",
    "NoRoomLeft",
    "Options",
    "Sampling",
    "Session",
    "SessionBusy",
    "SessionError",
    "Shelf",
    "generate",
    "info",
    "pick",
    "session",
]

__getattr__ = lazily(__name__, _HOMES)
