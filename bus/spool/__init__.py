"""From `log()` to the log: the memory-mapped spool that survives its trainer, and the thread that publishes it.

The trainer's side (`Lane.append`) touches nothing but memory; the publisher's side cuts frames from the same bytes
and forgets them when the broker has them on disk. Nothing here reads the log but to learn what it has.
"""

from .kind import Kind
from .lane import Lane
from .publisher import Publisher
from .spool import Counts, Spool

__all__ = ["Counts", "Kind", "Lane", "Publisher", "Spool"]
