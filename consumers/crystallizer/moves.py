"""Which changes of state a version of a tool may make. One table; the fold, the events and the tests follow it.

    registered ──> shadow ──> active ──> superseded ──> active (rolled back to)
                     │  ^        │           │
                     v  │        v           v
                   demoted <── demoted     retired, from anywhere, for good

At most one version of a tool is active, so the one that leaves is told before the one that comes.
"""

from morphogen.schemas import CrystalMoved

from .errors import IllegalMove

MOVES: dict[str, frozenset[str]] = {
    "shadow": frozenset({"active", "demoted", "retired"}),
    "active": frozenset({"superseded", "demoted", "retired"}),
    "superseded": frozenset({"active", "demoted", "retired"}),
    "demoted": frozenset({"shadow", "retired"}),  # another try begins beside the live mode, as the first did
    "retired": frozenset(),
}
BIRTH = "shadow"


def legal(was: str, now: str) -> bool:
    """Tell whether a version may go from one state to another."""
    return now in MOVES.get(was, frozenset())


def refusal(was: str, now: str) -> str | None:
    """Say why a version may not go from one state to another; None where it may."""
    if now not in MOVES:
        return f"there is no state {now!r}; the states are {', '.join(MOVES)}"
    if was not in MOVES:
        return f"there is no state {was!r}; the states are {', '.join(MOVES)}"
    if legal(was, now):
        return None
    allowed = ", ".join(sorted(MOVES[was]))
    return f"a version that is {was} cannot become {now}; it may become {allowed}" if allowed else f"{was} is for good"


def move(
    tool: str,
    number: int,
    was: str,
    now: str,
    reason: str,
    *,
    trials: int = 0,
    successes: int = 0,
    lower: float | None = None,
) -> CrystalMoved:
    """Return the event of a legal move. Raises IllegalMove."""
    why = refusal(was, now)
    if why is not None:
        raise IllegalMove(f"{tool} version {number}: {why}")
    return CrystalMoved(
        tool=tool, number=number, was=was, now=now, reason=reason, trials=trials, successes=successes, lower=lower
    )
