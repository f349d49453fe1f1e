"""What a changed program would have done: it is run again by the same interpreter, over what was recorded.

Every action that was recorded with the same arguments gives what it gave then, a failure included, and takes as long;
nothing is started, written or asked. The program of then goes first: only a run that it re-enacts as it was can judge
another one. What only looks and was not reached in a run is taken from another run that did the same (`borrowed`).
Where the changed program would do something that no run ever did, nobody can tell how it would have ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from morphogen.schemas import SchemaError
from morphogen.schemas.knowledge.errors import EvaluateError
from morphogen.schemas.knowledge.program import Program
from morphogen.schemas.knowledge.tools import Signature
from morphogen.schemas.knowledge.tree import AgentLoop, Task

from ..errors import LoopError
from ..state import DONE, FAILED
from .history import RecordedRun
from .narrow import kept_axes
from .proposal import Kept
from .recorded import Enacted, Records
from .reenact import enact

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTest:
    """One recorded run under the changed program. `unknown` says why it can tell nothing; then all else is empty."""

    run: str
    unknown: str | None = None
    verdict_before: str = ""
    verdict_after: str = ""
    verdict_same: bool | None = None
    saved_steps: int = 0
    saved_seconds: float = 0.0
    saved_tokens: int = 0
    saved_usd_micros: int = 0
    saved_trials: int = 0
    borrowed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BackTest:
    """All recorded runs under the changed program."""

    runs: tuple[RunTest, ...]

    @property
    def judged(self) -> tuple[RunTest, ...]:
        """The runs that can tell something."""
        return tuple(one for one in self.runs if one.unknown is None)

    @property
    def verdict_same(self) -> bool | None:
        """Whether every run that can tell ends as it did; None where none can."""
        return all(one.verdict_same for one in self.judged) if self.judged else None

    def figures(self) -> dict[str, Any]:
        """Return the sums, under the names that a policy may use."""
        judged = self.judged
        return {
            "runs": len(self.runs),
            "judged": len(judged),
            "verdict_same": self.verdict_same,
            "changed_verdicts": sum(one.verdict_same is False for one in judged),
            "saved_steps": sum(one.saved_steps for one in judged),
            "saved_seconds": sum(one.saved_seconds for one in judged),
            "saved_tokens": sum(one.saved_tokens for one in judged),
            "saved_usd": sum(one.saved_usd_micros for one in judged) / 1e6,
            "saved_trials": sum(one.saved_trials for one in judged),
            "borrowed": sum(one.borrowed for one in judged),
        }


def backtest(
    before: Program,
    after: Program,
    runs: Sequence[RecordedRun],
    *,
    signatures: Mapping[str, Signature],
    bus: "Bus | None" = None,
) -> BackTest:
    """Return how `after` would have gone in each run, against how `before` goes over the same outputs.

    `signatures` are those of the tools, `bus` is where large outputs are read from.
    """
    shared = Records(runs, signatures, bus)
    old = kept_axes(before.module)
    kept = [one for one in kept_axes(after.module) if one not in old]
    return BackTest(runs=tuple(_test(before, after, run, shared, kept, bus) for run in runs))


def _test(
    before: Program,
    after: Program,
    run: RecordedRun,
    shared: Records,
    kept: Sequence[Kept],
    bus: "Bus | None",
) -> RunTest:
    """Judge one run."""
    if not run.live:
        return RunTest(run=run.run, unknown="it was not live: nothing was really done")
    if run.status not in {DONE, FAILED}:
        return RunTest(run=run.run, unknown=f"it is {run.status or 'not begun'}, not over")
    trials, trial_seconds, same_best = _without(run, kept)
    if run.kind == "engineering":
        return RunTest(
            run=run.run,
            verdict_before=run.status,
            verdict_after=run.status if same_best else "another best",
            verdict_same=same_best,
            saved_seconds=trial_seconds,
            saved_trials=trials,
        )
    old_loop, new_loop = before.find_loop(run.loop), after.find_loop(run.loop)
    if not isinstance(old_loop, Task | AgentLoop) or not isinstance(new_loop, Task | AgentLoop):
        return RunTest(run=run.run, unknown="service loops have no end to compare")
    try:
        was = enact(before, old_loop, run, shared, bus)
    except (LoopError, EvaluateError, SchemaError) as error:
        return RunTest(run=run.run, unknown=f"the program of now does not re-enact it: {_line(error)}")
    if (was.status, was.success) != (run.status, None if run.verdict is None else run.verdict.success):
        return RunTest(run=run.run, unknown=f"re-enacted it is {was.status}, and it was {run.status}")
    try:
        now = enact(after, new_loop, run, shared, bus)
    except (LoopError, EvaluateError, SchemaError) as error:
        return RunTest(run=run.run, unknown=_line(error))
    return RunTest(
        run=run.run,
        verdict_before=_verdict(was),
        verdict_after=_verdict(now),
        verdict_same=(was.status, was.success) == (now.status, now.success) and same_best,
        saved_steps=was.steps - now.steps,
        saved_seconds=was.seconds - now.seconds + trial_seconds,
        saved_tokens=was.tokens - now.tokens,
        saved_usd_micros=was.cost_usd_micros - now.cost_usd_micros,
        saved_trials=trials,
        borrowed=now.borrowed,
    )


def _without(run: RecordedRun, kept: Sequence[Kept]) -> tuple[int, float, bool]:
    """Return the trials that narrowed sweeps leave out, their seconds, and whether the same configurations win."""
    gone, seconds, same = 0, 0.0, True
    for name, sweep in run.sweeps.items():
        mine = [one for one in kept if name == one.sweep or name.endswith(f".{one.sweep}")]
        for trial in sweep.trials if mine else ():
            if not trial.baseline and not all(one.holds(trial.config) for one in mine):
                gone += 1
                seconds += trial.seconds
        best = None if sweep.finished is None else sweep.finished.config
        if mine and best is not None:
            same = same and all(one.holds(best) for one in mine)
    return gone, seconds, same


def _verdict(enacted: Enacted) -> str:
    return (
        enacted.status
        if enacted.success is None
        else f"{enacted.status}, {'success' if enacted.success else 'no success'}"
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
