"""A lease as data: whose it is and until when, how it is written down, and what becomes of segments by their leases.

A lease is an empty file beside the bytes it is for. Its name says whose it is, its modification time when it ends. So
taking one is a single atomic call that needs no room in a full /dev/shm, and there is nothing that a crash could tear.
All here is pure.
"""

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from .holder import Holder, Liveness

OFFER, KEPT = "offer", "kept"
"""Leases without a holder: one that time alone ends, and one that only a release ends."""

SEGMENT = re.compile(r"[0-9a-f]{32}")
_TOKEN = re.compile(r"([0-9a-f]{16})\.(?:(offer)|(kept)|(\d{1,10})-(\d{1,20})-([0-9a-f]{8})-(\d{1,20}))")

Ending = Literal["expired", "owner_died"]


class Lease(msgspec.Struct, frozen=True):
    """The right to the bytes of a segment: `holder` is a process, OFFER or KEPT; `ident` is 16 hex digits."""

    segment: str  # 32 hex digits
    ident: str
    holder: Holder | Literal["offer", "kept"]

    @property
    def token(self) -> str:
        """What a `KvRef` carries, and what the lease's file is named after."""
        who = self.holder
        text = who if isinstance(who, str) else f"{who.pid}-{who.start}-{who.boot}-{who.space}"
        return f"{self.ident}.{text}"


def read_token(segment: str, token: str) -> Lease | None:
    """Return the lease that a token stands for; None where it is none of ours, whoever has written it."""
    found = _TOKEN.fullmatch(token)
    if found is None or SEGMENT.fullmatch(segment) is None:
        return None
    ident, offer, kept, pid, start, boot, space = found.groups()
    if offer or kept:
        return Lease(segment, ident, "offer" if offer else "kept")
    return Lease(segment, ident, Holder(int(pid), int(start), boot, int(space)))


def ending(lease: Lease, expires: int, now: int, alive: Liveness) -> Ending | None:
    """Return why a lease has ended, None while it holds. `expires` and `now` are unix nanoseconds."""
    if lease.holder == KEPT:
        return None
    if isinstance(lease.holder, Holder) and alive(lease.holder) is False:
        return "owner_died"
    return "expired" if now >= expires else None


class Segment(msgspec.Struct, frozen=True):
    """What lies in the folder of one segment: its bytes, being written or committed, and its leases with their ends."""

    ident: str
    state: Literal["writing", "ready", "empty"]
    size: int
    leases: tuple[tuple[Lease, int], ...] = ()
    foreign: tuple[str, ...] = ()  # files that this version cannot read: they keep the segment
    tainted: bool = False  # someone may still look at the bytes though their lease has ended


class Ended(msgspec.Struct, frozen=True):
    """A lease that has ended by itself, and why."""

    lease: Lease
    why: Ending


class Plan(msgspec.Struct, frozen=True):
    """What a reaper is to do: drop these leases, then remove these segments."""

    ended: tuple[Ended, ...]
    remove: tuple[Segment, ...]


def plan(segments: Iterable[Segment], now: int, alive: Liveness) -> Plan:
    """Return which leases have ended, and which segments nobody holds any more."""
    ended: list[Ended] = []
    remove: list[Segment] = []
    for segment in segments:
        over = [Ended(lease, why) for lease, expires in segment.leases if (why := ending(lease, expires, now, alive))]
        ended += over
        if len(over) == len(segment.leases) and not segment.foreign:
            remove.append(segment)
    return Plan(tuple(ended), tuple(remove))
