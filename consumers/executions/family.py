"""All executions of one signature, counted: how often, how well, at what cost, with what parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from morphogen.schemas.evidence import wilson_lower

from .trace import Trace

TRIALS = frozenset({"success", "failure", "timeout"})
_SHOWN = 20  # distinct values of a parameter that are counted


@dataclass(frozen=True, kw_only=True, slots=True)
class ModeTally:
    """How one mode did. Means are over the trials whose cost, or duration, is known; None where there is none."""

    mode: str
    uses: int = 0
    successes: int = 0
    mean_microusd: float | None = None
    mean_ns: float | None = None

    @property
    def lower(self) -> float:
        """The 95% lower bound of its success (Wilson)."""
        return wilson_lower(self.successes, self.uses)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What values a parameter had in a family's trials: their types, and how often each (up to 20, by text)."""

    name: str
    types: tuple[str, ...]
    values: Mapping[str, int]
    trials: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """All executions of one signature, in the order in which they began. Counts are of all, traces of those kept."""

    signature: str
    template: str
    goal: str  # as it was said last
    uses: int
    successes: int
    judged: int  # successes that somebody has judged
    cancelled: int
    unfinished: int
    modes: Mapping[str, ModeTally]
    traces: tuple[Trace, ...]
    params: Mapping[str, Seen]
    last_ns: int  # when the broker stored that the last began

    @property
    def tool(self) -> str:
        """The name of the tool that reaches this family's goals, should there be one."""
        return tool_name(self.signature)

    @property
    def success(self) -> float:
        """The share of trials that succeeded; 0 where there are none."""
        return self.successes / self.uses if self.uses else 0.0

    @property
    def lower(self) -> float:
        """The 95% lower bound of it (Wilson)."""
        return wilson_lower(self.successes, self.uses)

    @property
    def learner_microusd(self) -> float | None:
        """The mean cost of the learner's trials, in micro-dollars; None where none is known."""
        return self.modes["learner"].mean_microusd if "learner" in self.modes else None

    @property
    def learner_ns(self) -> float | None:
        """The mean duration of the learner's trials; None where there are none."""
        return self.modes["learner"].mean_ns if "learner" in self.modes else None

    @property
    def good(self) -> tuple[Trace, ...]:
        """The traces that succeeded, the newest last."""
        return tuple(trace for trace in self.traces if trace.ok)

    @property
    def bad(self) -> tuple[Trace, ...]:
        """The traces that failed or ran out of time, the newest last."""
        return tuple(trace for trace in self.traces if trace.outcome in {"failure", "timeout"})


def tool_name(signature: str) -> str:
    """Return the name of the tool of a family."""
    return f"tool_{signature.split('-', 1)[-1]}"


def family_of(signature: str, members: Sequence[Trace]) -> Family:
    """Return the family of these executions, which are at least one, in the order in which they began."""
    trials = [one for one in members if one.outcome in TRIALS]
    modes = {mode: _tally(mode, [one for one in trials if one.mode == mode]) for mode in {one.mode for one in trials}}
    names = dict.fromkeys(name for one in trials for name in one.params)
    return Family(
        signature=signature,
        template=members[0].template,
        goal=members[-1].goal,
        uses=len(trials),
        successes=sum(one.ok for one in trials),
        judged=sum(one.ok and one.judged_by != "nobody" for one in trials),
        cancelled=sum(one.outcome is not None and one.outcome not in TRIALS for one in members),
        unfinished=sum(one.outcome is None for one in members),
        modes=dict(sorted(modes.items())),
        traces=tuple(one for one in members if one.kept and one.outcome is not None),
        params={name: _seen(name, trials) for name in names},
        last_ns=max(one.at.stored_ns for one in members),
    )


def _tally(mode: str, trials: list[Trace]) -> ModeTally:
    return ModeTally(
        mode=mode,
        uses=len(trials),
        successes=sum(one.ok for one in trials),
        mean_microusd=_mean([one.cost_microusd for one in trials]),
        mean_ns=_mean([one.duration_ns for one in trials]),
    )


def _mean(values: list[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _seen(name: str, trials: list[Trace]) -> Seen:
    values = [one.params[name] for one in trials if name in one.params]
    counts: dict[str, int] = {}
    for value in values:
        text = repr(value)[:200]
        if text in counts or len(counts) < _SHOWN:
            counts[text] = counts.get(text, 0) + 1
    return Seen(name=name, types=tuple(sorted({type(value).__name__ for value in values})), values=counts,
                trials=len(values))  # fmt: skip
