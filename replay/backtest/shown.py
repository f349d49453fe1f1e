"""A backtest as text for people, and as JSON."""

from collections.abc import Iterator

import msgspec

from morphogen.schemas import json_text

from .backtest import Backtest, Difference, Group, described
from .evidence import SAME_SHAPE

_GROUPS, _RUNS = 12, 20


def lines(found: Backtest, *, everything: bool = False) -> Iterator[str]:
    """Yield the report: what was gone over, run by run, then the differences; with `everything`, each of them."""
    version = f" {found.version[:12]}" if found.version else ""
    yield f"policy {found.policy}{version} over {_many(len(found.scores), 'run')}, {_many(found.decisions, 'decision')}"
    rebuilt = sum(score.rebuilt for score in found.scores)
    yield f"  observations rebuilt from the log: {rebuilt} of {found.decisions}"
    same, exact = (sum(getattr(score, name) for score in found.scores) for name in ("same", "exact"))
    yield f"  the same action as recorded: {same}; the same to the bit in all that a policy says: {exact}"
    for one in found.skipped:
        yield f"  {one.run} could not be gone over: {one.reason}"
    if found.fault:
        yield f"  the policy failed {sum(score.faults for score in found.scores)} times: {found.fault}"
    yield from _runs(found, everything)
    yield from _evidence(found)
    if not found.differences:
        yield "nothing would have been done differently"
        return
    yield f"{_many(len(found.differences), 'decision')} would have been different:"
    shown = found.groups if everything else found.groups[:_GROUPS]
    for group in shown:
        yield from _group(group)
    if len(shown) < len(found.groups):
        yield f"  ... and {len(found.groups) - len(shown)} more kinds (--all shows them)"
    if everything:
        yield "each of them:"
        yield from map(_line, found.differences)


def as_json(found: Backtest) -> str:
    """Return all of it as one JSON document, on one line; estimates without support are null."""
    return json_text({"decisions": found.decisions, "exact": found.exact, **msgspec.structs.asdict(found)})


def _many(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _runs(found: Backtest, everything: bool) -> Iterator[str]:
    scores = found.scores if everything else found.scores[:_RUNS]
    for score in scores:
        name = (
            score.run
            + (f"/{score.attempt}" if score.attempt > 1 else "")
            + (f" rank {score.rank}" if score.rank else "")
        )
        when = (
            "no difference"
            if score.first is None
            else f"{score.differences} different, the first at epoch {score.first}"
        )
        lost = score.decisions - score.rebuilt
        note = f"; {lost} of its observations are not what its events say" if lost else ""
        yield f"  {name} (by {score.policy}): {score.decisions} decisions, {when}{note}"
    if len(scores) < len(found.scores):
        yield f"  ... and {len(found.scores) - len(scores)} more runs (--all shows them)"


def _evidence(found: Backtest) -> Iterator[str]:
    yield "contribution of seeds, in loss that they take away (mean, 95% interval):"
    yield f"  all that the log has: {found.recorded}"
    how = "weighted by how unlikely they were" if found.weighted else "as the log chose them"
    yield f"  those that this policy would have germinated too, {how}: {found.agreed}"


def _group(group: Group) -> Iterator[str]:
    times = "once" if group.times == 1 else f"{group.times} times in {_many(group.runs, 'run')}"
    first = f"{times}, from epoch {group.earliest}" if group.times > 1 else f"{times}, at epoch {group.earliest}"
    yield f"  {group.would}, instead of {group.instead_of}: {first}"
    if group.came_of_it.values:
        yield f"      contribution of what was done: {group.came_of_it}"
    if group.suggests is not None:
        like = f", by a {group.by}" if group.by == SAME_SHAPE and group.suggests.known else ""
        yield f"      contribution of what would have been done: {group.suggests}{like}"


def _line(one: Difference) -> str:
    moment = one.moment
    suggests = "" if one.suggests is None else f"; outcomes suggest {one.suggests}"
    came = "" if one.came_of_it is None else f" (contribution {one.came_of_it:+.4g})"
    reason = f" because {moment.chosen.reason}" if moment.chosen.reason else ""
    return (
        f"  {moment.run} epoch {moment.epoch}: {described(moment.chosen)}{reason}, instead of "
        f"{described(moment.recorded)}{came}{suggests}"
    )
