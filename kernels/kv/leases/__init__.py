"""Leases: who holds bytes in a folder that many processes share, until when, and what is removed when nobody does.

A lease has a time to live and, but for offers, a process that holds it; it ends by release, by time, or with that
process. A reaper removes what nobody holds. Knows files and processes; knows nothing of what the bytes are.
"""

from .errors import LeaseEnded, LeaseError
from .folder import LeaseFolder, Reaped, Released, prepare, reap
from .holder import Holder, Liveness, alive, me, started
from .keeper import Keeper
from .lease import KEPT, OFFER, Ended, Lease, Plan, Segment, ending, plan, read_token

__all__ = [
    "KEPT",
    "OFFER",
    "Ended",
    "Holder",
    "Keeper",
    "Lease",
    "LeaseEnded",
    "LeaseError",
    "LeaseFolder",
    "Liveness",
    "Plan",
    "Reaped",
    "Released",
    "Segment",
    "alive",
    "ending",
    "me",
    "plan",
    "prepare",
    "read_token",
    "reap",
    "started",
]
