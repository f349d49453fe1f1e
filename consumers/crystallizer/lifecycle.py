"""What becomes of a version after it is registered: decided from the log alone, by pure functions.

`decide` says from the careers of a tool's versions which change their state and why, and `again` which tools are to be made
anew. No clock, no randomness, no I/O: the time comes in, in nanoseconds.

A version in shadow is promoted when it ran beside the live mode often enough without one disagreement, and the lower
Wilson bound of all that it was held to (held-out executions and shadow runs) is high enough. An active one is demoted
when its newest runs fail, or their bound falls; then the version before it comes back, if it had not failed itself.

What takes several moves may be cut short between any two of them, and is taken up: `decide` sees it in what has been moved.
"""

from collections.abc import Iterable, Iterator

import msgspec

from morphogen.consumers.executions import wilson_lower
from morphogen.schemas import CrystalMoved

from .careers import Career
from .moves import move

DAY_NS = 86_400 * 10**9
FELL = "its newest "  # begins the reason of a version that fell by its runs, and of no other


class Life(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The thresholds of a tool's life. Bounds are lower ends of Wilson's one-sided 95% interval."""

    shadows: int = 3  # runs beside the live mode before a version may be promoted
    promote_lower: float = 0.75  # of held-out executions and shadow runs together
    demote_lower: float = 0.6  # of the newest `window` runs
    window: int = 50
    failures: int = 3  # in a row, after which a version is demoted whatever its bound
    retire_days: float = 30.0  # without a use of the tool, or of its family
    misses: int = 5  # of guards since a version was registered, after which the tool is made anew
    newer: int = 5  # successes since then that a new version is made for
    better: float = 0.2  # part by which newer executions must take fewer steps, or less time where they take as many


def decide(
    versions: Iterable[Career],
    *,
    now_ns: int,
    family_used_ns: int | None,
    newer: "Newer | None" = None,
    life: Life | None = None,
) -> list[CrystalMoved]:
    """Return how the versions of one tool change, in the order in which it is to be done.

    `family_used_ns` is when the family was last pursued in any way; None where no execution of it is left in the log. `newer` is
    what newer executions say of the active version.
    """
    life = life or Life()
    known = sorted(versions, key=lambda one: one.number)
    moves = list(_retired(known, now_ns, family_used_ns, life))
    gone = {one.number for one in moves}
    known = [one for one in known if one.number not in gone]
    active = next((one for one in known if one.state == "active"), None)
    falling = None if active is None else fallen(active, life)
    for one in known:
        if one.state == "shadow" and one.shadows > one.agreed:
            why = f"{one.shadows - one.agreed} of {one.shadows} shadow runs disagreed: {one.disagreed}"
            moves.append(_move(one, "demoted", why))
    ready = [one for one in known if one.state == "shadow" and promotable(one, life)]
    heir = ready[-1] if ready and (active is None or ready[-1].number > active.number) else None
    if heir is not None:
        if active is not None:
            moves.append(_move(active, "superseded", f"version {heir.number} takes its place"))
        moves.append(_move(heir, "active", _evidence(heir)))
        moves += _passed_by(known, heir.number)
    elif active is None:
        moves += _resumed(known, life)
    elif active is not None and falling is not None:
        successes, trials = active.newest(life.window)
        moves.append(_judged(active, "demoted", falling, successes, trials))
        moves += _back(known, active, life)
    elif active is not None and newer is not None and newer.differed:
        agreed = newer.replayed - newer.differed
        if wilson_lower(agreed, newer.replayed) < life.demote_lower:
            why = f"it does not reproduce {newer.differed} of {newer.replayed} newer executions"
            moves.append(_judged(active, "demoted", why, agreed, newer.replayed))
    if active is not None and heir is None:
        moves += _passed_by(known, active.number, active.turn)
    return moves


def _passed_by(known: list[Career], number: int, turn: int | None = None) -> Iterator[CrystalMoved]:
    """Retire the older versions that waited in shadow when a newer one came to be active, by its move `turn`."""
    for one in known:
        waited = one.state == "shadow" and one.number < number and one.shadows == one.agreed
        if waited and (turn is None or one.turn < turn):
            yield _move(one, "retired", f"version {number} was promoted")


def _resumed(known: list[Career], life: Life) -> list[CrystalMoved]:
    """Bring a version back where the one that was active left, and what was to come after it was cut off."""
    last = max((one for one in known if one.left), key=lambda one: one.left, default=None)
    if last is None:
        return []
    if last.state == "demoted" and last.reason.startswith(FELL):
        return _back(known, last, life)
    if last.state == "superseded" and fallen(last, life) is None:
        return [_judged(last, "active", "back: no version took its place", *last.newest(life.window))]
    return []


def promotable(one: Career, life: Life) -> bool:
    """Tell whether a version in shadow has what promotion asks for."""
    return one.shadows >= life.shadows and one.shadows == one.agreed and one.lower() >= life.promote_lower


def lacking(one: Career, life: Life) -> str | None:
    """Say what a version lacks for promotion; None where nothing."""
    if one.shadows > one.agreed:
        return f"{one.shadows - one.agreed} of its {one.shadows} shadow runs disagreed: {one.disagreed}"
    if one.shadows < life.shadows:
        return f"it has {one.shadows} shadow runs, and {life.shadows} are asked for"
    if one.lower() < life.promote_lower:
        return f"its lower bound is {one.lower():.3f}, and {life.promote_lower:g} is asked for"
    return None


def fallen(one: Career, life: Life) -> str | None:
    """Say why an active version is to be demoted; None where it is not."""
    if one.failing >= life.failures:
        return f"{FELL}{one.failing} runs failed"
    successes, trials = one.newest(life.window)
    lower = wilson_lower(successes, trials)
    if trials > successes and lower < life.demote_lower:
        return f"{FELL}{trials} runs succeeded {successes} times: the lower bound {lower:.3f} is below {life.demote_lower:g}"
    return None


def rolled_back(versions: Iterable[Career], reason: str, life: Life | None = None) -> list[CrystalMoved]:
    """Return the moves that bring back the version before the active one; none where there is none to bring back."""
    known = sorted(versions, key=lambda one: one.number)
    active = next((one for one in known if one.state == "active"), None)
    back = _back(known, active, life or Life(), reason)
    if active is None or not back:
        return back
    return [_judged(active, "demoted", reason, *active.newest((life or Life()).window)), *back]


def _back(known: list[Career], active: Career | None, life: Life, reason: str = "") -> list[CrystalMoved]:
    """Bring back the newest superseded version whose own record has not fallen."""
    for one in reversed(known):
        if one.state == "superseded" and (active is None or one.number < active.number) and fallen(one, life) is None:
            why = reason or f"version {active.number if active else '?'} was demoted"
            return [_judged(one, "active", f"back: {why}", *one.newest(life.window))]
    return []


def _retired(known: list[Career], now_ns: int, family_used_ns: int | None, life: Life) -> Iterator[CrystalMoved]:
    ages = [one.used_ns for one in known] + ([family_used_ns] if family_used_ns is not None else [])
    unused = (now_ns - max(ages, default=now_ns)) / DAY_NS
    if unused < life.retire_days:
        return
    why = "no execution of its family is left in the log" if family_used_ns is None else "nobody has asked for it"
    for one in known:
        if one.state in {"shadow", "active", "superseded", "demoted"}:
            yield _move(one, "retired", f"unused for {unused:.0f} days; {why}")


def _move(one: Career, now: str, reason: str) -> CrystalMoved:
    return _judged(one, now, reason, one.successes, one.trials)


def _judged(one: Career, now: str, reason: str, successes: int, trials: int) -> CrystalMoved:
    return move(
        one.tool,
        one.number,
        one.state,
        now,
        reason,
        trials=trials,
        successes=successes,
        lower=wilson_lower(successes, trials),
    )


def _evidence(one: Career) -> str:
    return (
        f"{one.replayed} held-out executions and {one.agreed} shadow runs agreed: the lower bound is {one.lower():.3f}"
    )


class Newer(msgspec.Struct, frozen=True, kw_only=True):
    """What executions that are newer than a version say of it: how many were replayed against it, and what they took."""

    successes: int = 0  # executions of the family that succeeded since it was registered
    replayed: int = 0  # of them, held against the version
    differed: int = 0  # of those, with another result
    unguarded: int = 0  # of the newer ones, outside its guards
    steps_then: float | None = None  # mean steps of the executions that it was made from
    steps_now: float | None = None  # and of the newer ones
    ns_then: float | None = None  # mean duration
    ns_now: float | None = None


class Again(msgspec.Struct, frozen=True, kw_only=True):
    """A tool is to be made anew, and why. `newer_only` says that what is older than its newest version is not learned from."""

    reason: str
    newer_only: bool = True


def again(newest: Career, newer: Newer, life: Life | None = None) -> Again | None:
    """Say why a tool whose newest version this is should be made anew; None where it should not."""
    life = life or Life()
    number = newest.number
    if newer.successes < life.newer or newest.state == "retired":
        return None
    if newest.state == "shadow":
        if newest.shadows or 2 * newer.unguarded <= newer.successes:
            return None
        why = f"the guards of version {number} kept it from {newer.unguarded} of {newer.successes} newer executions"
        return Again(reason=why, newer_only=False)
    if newest.state == "demoted":
        return Again(reason=f"version {number} was demoted, and {newer.successes} newer executions succeeded")
    if newer.differed:
        return Again(
            reason=f"version {number} does not reproduce {newer.differed} of {newer.replayed} newer executions"
        )
    if newest.misses >= life.misses or newer.unguarded:
        missed = max(newest.misses, newer.unguarded)
        return Again(reason=f"the guards of version {number} were missed {missed} times", newer_only=False)
    steps = _part(newer.steps_then, newer.steps_now)
    if steps is not None and steps >= life.better:
        return Again(
            reason=f"newer executions take {steps:.0%} fewer steps than those that version {number} was made from"
        )
    spent = _part(newer.ns_then, newer.ns_now)
    if steps == 0 and spent is not None and spent >= 2 * life.better:  # times are noisy: twice the part is asked for
        return Again(
            reason=f"newer executions take {spent:.0%} less time than those that version {number} was made from"
        )
    return None


def _part(then: float | None, now: float | None) -> float | None:
    return None if then is None or now is None or then <= 0 else (then - now) / then
