"""Who can hold a prefix, and what a lookup answers."""

import msgspec

from morphogen.schemas.kv import TIERS


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A place that holds KV blocks: a worker's tier. `engine` names the member of a fleet that is not ours."""

    worker: str
    tier: str
    engine: str | None = None


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """How many leading blocks a holder has, and, of our own workers, the states that hold the last of them.

    `doubtful` says that events of the holder's engine were lost: it may have let go of them.
    """

    holder: Holder
    blocks: int
    tokens: int
    states: tuple[str, ...] = ()
    doubtful: bool = False


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """The longest prefix that somebody holds: `tokens` of it in `blocks` of `block`, and by whom.

    `holders` have all of it, the fastest tier first; `shorter` have less of it, the longest first. Nothing held is 0
    blocks and no holders.
    """

    blocks: int = 0
    tokens: int = 0
    block: int = 0
    root: str | None = None
    holders: tuple[Held, ...] = ()
    shorter: tuple[Held, ...] = ()


def speed(holder: Holder) -> tuple[int, str, str]:
    """Return a sort key: faster tiers first, then by name."""
    rank = TIERS.index(holder.tier) if holder.tier in TIERS else len(TIERS)
    return rank, holder.engine or "", holder.worker
