"""The stages that run a draft on the recorded past: the sandboxed import, and the replay of every held-out execution.

A replay is equal when the answer has the same hash and every change of the world was made again, with the same arguments, in
the same order. A read that was made in every execution, always gave the same and is not made by the tool, becomes a guard
that makes it before each call, as nothing shows that the tool would have noticed a difference; where that cannot be, the
draft is refused.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morphogen.consumers.executions import Trace
from morphogen.kernels.sandbox import BadJob, Capabilities, Outcome, Sandbox, value_sha256
from morphogen.schemas import CrystalDrafted
from morphogen.schemas.crystals import Guard

from ..acting import Use
from ..source import IMPORTED, importing
from ..tape import Recorded, Tape, played
from ..world import sentinel, site
from .stage import Stage
from .statics import constant_world

_TOLD = 3
_MOST_SECONDS = 300.0  # for all the replays of a draft together: one that needs longer is refused
Site = tuple[str, str]
"""A capability, and where in the course it is used (`world.site`, or `*` for anywhere)."""


@dataclass(frozen=True)
class Replayed:
    """A held-out execution, what the draft made of it, and why that is not equal (None where it is)."""

    trace: Trace
    outcome: Outcome | None
    uses: tuple[Use, ...]
    fault: str | None


def imported(draft: CrystalDrafted, sandbox: Sandbox) -> Stage:
    """Judge whether the text can be imported where it will run, without a call of it."""
    outcome = sandbox.run(importing(draft.source), entry=IMPORTED, capabilities=Capabilities())
    layers = outcome.layers_held
    if not outcome.ok or outcome.effects:
        return Stage("sandbox_import", f"it cannot be imported: {told(outcome)}", layers=layers)
    evidence = {"cpu_ns": outcome.cpu_ns, "rss_bytes": outcome.rss_bytes}
    return Stage("sandbox_import", evidence=evidence, layers=layers)


def contradiction(traces: Sequence[Trace]) -> str | None:
    """Name two executions that were given the same, saw the same and answered otherwise; None where there are none."""
    seen: dict[tuple[str, str], Trace] = {}
    pure: dict[tuple[str, str], str] = {}
    for trace in traces:
        for step in trace.tools:
            if step.ok and step.effect == "pure":
                answer = value_sha256(step.result)
                if pure.setdefault((step.name, value_sha256(dict(step.args))), answer) != answer:
                    return f"{step.name} is declared pure, and answered one question in two ways; declare it as it is"
        key = (value_sha256(dict(trace.params)), played(trace.tools))
        before = seen.setdefault(key, trace)
        if value_sha256(before.output) != value_sha256(trace.output):
            return (
                f"{before.execution} and {trace.execution} were given the same, were answered the same, and gave "
                f"{repr(before.output)[:60]} and {repr(trace.output)[:60]}: something unseen decides"
            )
    return None


def replayed(
    draft: CrystalDrafted,
    held_out: Sequence[Trace],
    others: Sequence[Trace],
    rejected: Sequence[Trace],
    sandbox: Sandbox,
    real: Capabilities | None,
    least: int,
) -> tuple[Stage, tuple[Replayed, ...], list[Guard]]:
    """Judge the draft on every held-out execution; with the stage come the runs, and guards for what it does not read.

    One that had to be killed is the last that is run, and all together have `_MOST_SECONDS`.
    `others` are executions that it was made from, `rejected` those that somebody judged bad.
    """
    if len(held_out) < least:
        why = f"there are {len(held_out)} held-out executions that succeeded and are whole, and {least} are needed"
        return Stage("replay", why), (), []
    unseen = contradiction([*held_out, *others])
    if unseen is not None:
        return Stage("replay", unseen), (), []
    if constant_world([trace.params for trace in (*held_out, *others)], draft.capabilities):
        return (
            Stage("replay", "nothing varied, neither parameters nor what was read: a constant proves nothing"),
            (),
            [],
        )
    ends_at = time.monotonic() + _MOST_SECONDS
    runs, unread = _replays(draft, held_out, sandbox, real, ends_at)
    left = len(held_out) - len(runs)
    faults = [run for run in runs if run.fault is not None]
    evidence = {
        "executions": [run.trace.execution for run in runs],
        "effects": sum(len(run.uses) for run in runs),
        "distinct_params": len({value_sha256(dict(run.trace.params)) for run in runs}),
        "distinct_outputs": len({value_sha256(run.trace.output) for run in runs}),
        "failures": [{"execution": run.trace.execution, "why": run.fault} for run in faults[:_TOLD]],
    }
    matched = len(runs) - len(faults)
    layers = runs[0].outcome.layers_held if runs and runs[0].outcome is not None else ()
    reason = ""
    sentinels, blind = _sentinels(unread, (*held_out, *others))
    if blind is not None:
        reason = f"{blind} was read in every execution and always gave the same, and the tool does not read it"
    if faults:
        reason = f"{len(faults)} of {len(runs)} held-out executions differ, the first {faults[0].trace.execution}: {faults[0].fault}"
        reason += f"; {left} more were not run" if left else ""
    elif left:
        reason = f"{_too_long()}: {left} of {len(held_out)} held-out executions were left by then"
    elif not reason:
        for trace in rejected:
            if time.monotonic() >= ends_at:
                reason = f"{_too_long()}: of those that were judged a failure some were left by then"
                break
            run, _ = _replay(draft, trace, sandbox, real)
            if run.fault is None:
                reason = f"it repeats {trace.execution}, which was judged a failure by {trace.judged_by}"
                break
    stage = Stage("replay", reason, evidence=evidence, tried=len(runs), matched=matched, layers=layers)
    return stage, tuple(runs), sentinels


def _replays(
    draft: CrystalDrafted, traces: Sequence[Trace], sandbox: Sandbox, real: Capabilities | None, ends_at: float
) -> tuple[list[Replayed], list[set[Site]]]:
    """Replay executions in turn, until the time is over or a run had to be killed: each that follows may cost as much."""
    runs: list[Replayed] = []
    unread: list[set[Site]] = []
    for trace in traces:
        if time.monotonic() >= ends_at:
            break
        run, left = _replay(draft, trace, sandbox, real)
        runs.append(run)
        unread.append(left)
        if run.outcome is not None and run.outcome.killed_by is not None:
            break
    return runs, unread


def _too_long() -> str:
    return f"its replays take longer than {_MOST_SECONDS:g} s; let it do less"


def _replay(
    draft: CrystalDrafted, trace: Trace, sandbox: Sandbox, real: Capabilities | None
) -> tuple[Replayed, set[Site]]:
    tape = Tape(trace.tools, real)
    try:
        outcome = sandbox.run(draft.source, dict(trace.params), entry=draft.entry, capabilities=tape.capabilities)
    except BadJob as error:
        return Replayed(trace, None, (), str(error)), set()
    fault = tape.fault()
    if fault is None and not outcome.ok:
        fault = told(outcome)
    if fault is None and value_sha256(outcome.value) != value_sha256(trace.output):
        fault = f"it gives {repr(outcome.value)[:120]} where {repr(trace.output)[:120]} was recorded"
    return Replayed(trace, outcome, tuple(tape.uses), fault), _looked_past(tape, trace)


def _sites(step: Recorded, trace: Trace) -> tuple[Site, Site]:
    return (step.name, site(step.args, trace.params)), (step.name, "*")


def _looked_past(tape: Tape, trace: Trace) -> set[Site]:
    """Return where an execution read what the tool did not. That a thing is there is seen by who uses it all the same."""
    used = [use.args for use in tape.uses]
    left = [step for step in tape.unread if not (step.result is True and dict(step.args) in used)]
    return {at for step in left for at in _sites(step, trace)}


def _sentinels(unread: Sequence[set[Site]], traces: Sequence[Trace]) -> tuple[list[Guard], str | None]:
    """Return guards that make up for reads that the tool leaves out though they always gave the same; or what cannot be."""
    always = set(unread[0]).intersection(*unread[1:]) if unread else set()
    uses: dict[Site, list[tuple[Mapping[str, Any], Recorded]]] = {}
    for trace in traces:
        for step in trace.tools:
            for at in _sites(step, trace) if step.ok else ():
                uses.setdefault(at, []).append((trace.params, step))
    guards: list[Guard] = []
    for name, where in sorted(always, key=lambda at: (at[1] == "*", at)):
        alike = uses.get((name, where), [])
        if len({value_sha256(step.result) for _, step in alike}) != 1:
            continue  # it gave this and that, and the tool was right without it
        if where == "*":
            if not any(guard.subject == name for guard in guards):
                return guards, name
            continue
        guard = sentinel(name, alike)
        if guard is not None:
            guards.append(guard)
    return guards, None


def told(outcome: Outcome) -> str:
    """Return what a run raised, or what ended it, in one line."""
    failure = outcome.error
    if failure is None:
        return "it used a capability"
    line = f" (line {failure.line})" if failure.line is not None else ""
    return f"{failure.type}: {' '.join(failure.message.split())[:300]}{line}"
