"""A policy over many recorded runs: what agrees, what differs, and what the outcomes in the log say of it."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from morphogen.bus.aside import in_thread
from morphogen.bus.settings import Settings
from morphogen.consumers.policy import Policy, load_policy
from morphogen.consumers.policy.identity import name_of, version_of
from morphogen.schemas import line_of

from ..span import Progress, silent
from .again import Choice, Moment, Rerun, again
from .evidence import Evidence, Experience, Host, experiences_of
from .interval import Estimate, estimate
from .recorded import Recorded, recorded_runs

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

GERMINATE = "germinate"
_FAINT = 100.0  # of a log-probability: an action less likely than that was not drawn by it


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """How one run compared. `first` is the epoch of the first difference; `faults` counts failures of the policy."""

    run: str
    attempt: int
    rank: int
    policy: str
    decisions: int
    rebuilt: int
    same: int
    exact: int
    differences: int
    first: int | None
    faults: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A moment at which the policy would have done otherwise.

    `came_of_it` is the contribution that the log measured for what was done; `suggests` is what outcomes of decisions
    like the policy's say, by the likeness `by`. None where nothing was done or measured, or nothing would be done.
    """

    moment: Moment
    came_of_it: float | None = None
    suggests: Estimate | None = None
    by: str | None = None


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Differences of one kind in one host: in place of what, which action, how often, first when, and what is known."""

    instead_of: str
    would: str
    times: int
    runs: int
    earliest: int
    came_of_it: Estimate
    suggests: Estimate | None
    by: str | None


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A run that could not be gone over, and why."""

    run: str
    reason: str


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy would have done over recorded runs.

    `recorded` is the mean contribution of all judged seeds of the log, `agreed` that of those which the policy would
    have germinated at the same moment too. Where the log says how likely each was, `agreed` is weighted by the inverse of that (`weighted`),
    which takes the recording policy's preferences out; otherwise it compares, and does not estimate the policy's worth.
    """

    policy: str
    version: str | None
    scores: list[Score]
    groups: list[Group]
    differences: list[Difference]
    recorded: Estimate
    agreed: Estimate
    weighted: bool
    fault: str | None  # the first failure of the policy
    skipped: list[Skipped]  # runs that could not be gone over

    @property
    def decisions(self) -> int:
        """How many decisions were gone over."""
        return sum(score.decisions for score in self.scores)

    @property
    def exact(self) -> bool:
        """Tell whether every run was gone over, every observation rebuilt, and every decision as recorded, to the bit."""
        whole = bool(self.scores) and not self.skipped
        return whole and all(score.rebuilt == score.exact == score.decisions for score in self.scores)


@dataclass(frozen=True)
class Examined:
    """What is kept of a run that was gone over: it is small, so that thousands can be compared."""

    host: Host
    score: Score
    differing: tuple[Moment, ...]
    agreeing: frozenset[str]  # decisions that the policy would have taken too
    logprobs: Mapping[str, float | None]  # of the judged decisions, by the policy of the log
    experiences: tuple[Experience, ...]
    fault: str | None


async def backtest(
    conn: "Connection | None",
    settings: Settings,
    policy: Any,
    patterns: Sequence[str] = (),
    *,
    seed: int | None = None,
    learn: bool = True,
    options: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Backtest:
    """Run a policy over recorded runs; nothing is published.

    `policy` is what `load_policy` takes: a built-in name, a checkpoint's path, `module:Class`, a class, a policy. One
    is made for each run, with the run's recorded seed unless `seed` is given; of a policy, a copy. Raises BacktestFailed, PolicyError, LogGap.
    """

    def make(own: int) -> Policy:
        found = load_policy(policy, seed=own if seed is None else seed, **(options or {}))
        return copy.deepcopy(found) if found is policy else found  # what one run taught it is not for the next one

    named = make(0)
    examined: list[Examined] = []
    skipped: list[Skipped] = []

    def missed(pattern: str) -> None:
        skipped.append(Skipped(run=pattern, reason="no run that could grow is named so"))

    async for recorded in recorded_runs(conn, settings, patterns, missed=missed, progress=progress):
        try:
            chosen = make(recorded.started.seed)
            examined.append(await in_thread(partial(_gone_over, recorded, chosen, learn)))
        except Exception as error:  # noqa: BLE001  a log has what anybody wrote; the other runs are as good as before
            skipped.append(Skipped(run=str(recorded.key), reason=f"{type(error).__name__}: {line_of(error, 200)}"))
    return compare(examined, policy=name_of(named), version=version_of(named), skipped=skipped)


def examine(rerun: Rerun) -> Examined:
    """Return what is kept of a rerun."""
    key, moments = rerun.key, rerun.moments
    differing = tuple(moment for moment in moments if moment.differs)
    found = tuple(experiences_of(rerun.recorded))
    judged = {one.decision for one in found}
    score = Score(
        run=key.run, attempt=key.attempt, rank=key.rank, policy=rerun.recorded.started.policy, decisions=len(moments),
        rebuilt=sum(moment.rebuilt for moment in moments), same=sum(moment.same for moment in moments),
        exact=sum(moment.exact for moment in moments), differences=len(differing),
        first=min((moment.epoch for moment in differing), default=None), faults=len(rerun.faults),
    )  # fmt: skip
    return Examined(
        host=Host.of(rerun.recorded.started),
        score=score,
        differing=differing,
        agreeing=frozenset(one.decision for one in moments if one.decision and one.same and one.chosen.acts),
        logprobs={one.decision: one.logprob for one in moments if one.decision in judged and one.decision},
        experiences=found,
        fault=rerun.faults[0] if rerun.faults else None,
    )


def compare(
    examined: Sequence[Examined], *, policy: str, version: str | None = None, skipped: Sequence[Skipped] = ()
) -> Backtest:
    """Return what the runs that one policy was run over say together. Pure."""
    evidence = Evidence()
    for one in examined:
        evidence.add(one.experiences)
    differences = [(one.host, _difference(moment, one, evidence)) for one in examined for moment in one.differing]
    agreed, weighted = _agreed(examined)
    return Backtest(
        policy=policy,
        version=version,
        scores=[one.score for one in examined],
        groups=_groups(differences),
        differences=[difference for _, difference in differences],
        recorded=estimate((one.run, one.contribution) for one in evidence.all if one.op == GERMINATE),
        agreed=agreed,
        weighted=weighted,
        fault=next((one.fault for one in examined if one.fault), None),
        skipped=list(skipped),
    )


def described(choice: Choice | None) -> str:
    """Return what would be done, in a few words; `wait` where the guards say no."""
    if choice is None:
        return "nothing (no proposal in the log)"
    if not choice.acts:
        return "wait" if choice.action.op == "wait" else f"wait ({choice.blocked_by or 'no verdict'} said no)"
    alpha = "" if choice.action.alpha is None else f" to {choice.action.alpha:.3g}"
    return " ".join(part for part in (choice.action.op, choice.blueprint or "", f"at {choice.site}") if part) + alpha


def _gone_over(recorded: Recorded, policy: Policy, learn: bool) -> Examined:
    try:
        return examine(again(recorded, policy, learn=learn))
    except BaseException as error:  # a policy that exits is a policy that failed, and must not end the backtest
        if isinstance(error, Exception):
            raise
        raise RuntimeError(f"the policy raised {type(error).__name__}") from error


def _difference(moment: Moment, examined: Examined, evidence: Evidence) -> Difference:
    done = {one.decision: one.contribution for one in examined.experiences}
    came = done.get(moment.decision) if moment.decision is not None else None
    chosen = moment.chosen
    if not chosen.acts or chosen.site is None:
        return Difference(moment=moment, came_of_it=came)
    found, by = evidence.of(examined.host, chosen.action.op, chosen.site, chosen.blueprint)
    return Difference(moment=moment, came_of_it=came, suggests=found, by=by)


def _groups(differences: Sequence[tuple[Host, Difference]]) -> list[Group]:
    kinds: dict[tuple[str, str, str], list[Difference]] = {}
    for host, one in differences:
        key = (host.address, described(one.moment.recorded), described(one.moment.chosen))
        kinds.setdefault(key, []).append(one)
    groups = [
        Group(
            instead_of=was, would=would, times=len(found), runs=len({_run(one.moment) for one in found}),
            earliest=min(one.moment.epoch for one in found),
            came_of_it=estimate((_run(one.moment), one.came_of_it) for one in found if one.came_of_it is not None),
            suggests=found[0].suggests, by=found[0].by,
        )
        for (_, was, would), found in kinds.items()
    ]  # fmt: skip
    return sorted(groups, key=lambda group: (-group.times, group.earliest, group.instead_of, group.would))


def _agreed(examined: Sequence[Examined]) -> tuple[Estimate, bool]:
    """Return the mean contribution of the seeds that both would germinate; weighted where the log says how likely each was."""
    found = [
        (one, each)
        for one in examined
        for each in one.experiences
        if each.decision in one.agreeing and each.op == GERMINATE
    ]
    logprobs = [one.logprobs.get(each.decision) for one, each in found]
    weighted = bool(found) and all(known is not None and abs(known) < _FAINT for known in logprobs)
    runs: dict[str, list[tuple[float, float]]] = {}
    for (_, each), logprob in zip(found, logprobs, strict=True):
        weight = math.exp(-logprob) if weighted and logprob is not None else 1.0
        runs.setdefault(each.run, []).append((weight, each.contribution))
    return estimate(runs), weighted


def _run(moment: Moment) -> str:
    return f"{moment.run}/{moment.attempt}/{moment.rank}"
