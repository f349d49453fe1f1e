"""What a draft passes over: a parameter or an answer that changed from execution to execution, and changes nothing of what it does.

Recordings cannot tell whether such a thing does not matter, or happened to go along with what does: the first of two runs was
always the better one, a number was always the length of the file. The draft is run with the value of another execution
in its place; if nothing ever comes of it, the draft is refused. Two executions that differ in a parameter alone and ended alike
would be the proof that it does not matter.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from morphogen.consumers.executions import Trace
from morphogen.kernels.sandbox import value_sha256
from morphogen.schemas import CrystalDrafted

from ..world import site
from . import inputs

TRIES = 6
_NUMBERED = 4  # uses of one capability that are looked at one by one
LISTING = frozenset({"files.list_folder", "files.exists"})
"""Looks at what there is, by which agents find their way; a tool that knows its way may do without."""

Site = tuple[str, str]
"""A capability and where it is used: a `world.site`, or `#0` for the first use that the draft makes of it."""
Said = tuple[Any, Any, list[tuple[str, str]]]
Run = Callable[[Mapping[str, Any], Mapping[Site, Any]], Said]
"""Runs the draft with parameters and with answers given at some sites instead of the recorded.

It returns what can be compared: the hash of the answer, the failure, and the uses of capabilities with hashes of their arguments.
"""


def passed_over(draft: CrystalDrafted, traces: Sequence[Trace], run: Run, tries: int = TRIES) -> str | None:
    """Say what varied and changes nothing; None where everything that varied shows."""
    rng = random.Random(draft.source_sha256)  # noqa: S311 - a draw that must repeat itself
    for name in sorted({name for trace in traces for name in trace.params}):
        others = _distinct([trace.params[name] for trace in traces if name in trace.params])
        if len(others) > 1 and not _shown_idle(name, traces):
            tried = _params(name, others, traces, rng, tries)
            if not any(run(before, {}) != run(after, {}) for before, after in tried):
                return (
                    f"the parameter {name!r} differs from execution to execution, and changes nothing of what it does"
                )
    for at, answers in sorted((_answers(traces) | _own(draft, traces, run)).items()):
        if len(answers) > 1:
            tried_answers = _worlds(answers, traces, rng, tries)
            if not any(run(trace.params, {}) != run(trace.params, {at: answer}) for trace, answer in tried_answers):
                return f"{at[0]} {at[1]} was read in every execution, gave this and that, and changes nothing of what it does"
    return None


def _params(
    name: str, others: Sequence[Any], traces: Sequence[Trace], rng: random.Random, count: int
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for trace in rng.sample(traces, min(count, len(traces))):
        if name in trace.params:
            now = value_sha256(trace.params[name])
            other = rng.choice([one for one in others if value_sha256(one) != now])
            yield trace.params, {**trace.params, name: other}


def _worlds(
    answers: Sequence[Any], traces: Sequence[Trace], rng: random.Random, count: int
) -> Iterator[tuple[Trace, Any]]:
    for at, trace in enumerate(rng.sample(traces, min(count, len(traces)))):
        yield trace, rng.choice(answers)
        yield trace, inputs.changed(rng.choice(answers), rng)
        yield trace, answers[at % len(answers)]


def _answers(traces: Sequence[Trace]) -> dict[Site, list[Any]]:
    """Return what was answered at each site that was read in every execution; listings aside."""
    found: dict[Site, dict[str, Any]] = {}
    count: dict[Site, int] = {}
    for trace in traces:
        here: set[Site] = set()
        for step in trace.tools:
            if step.ok and step.effect == "read" and step.name not in LISTING:
                at = (step.name, site(step.args, trace.params))
                here.add(at)
                found.setdefault(at, {})[value_sha256(step.result)] = step.result
        for at in here:
            count[at] = count.get(at, 0) + 1
    return {at: list(values.values()) for at, values in found.items() if count[at] == len(traces)}


def _own(draft: CrystalDrafted, traces: Sequence[Trace], run: Run) -> dict[Site, list[Any]]:
    """Return what was answered to the reads that the draft itself makes in each of some executions, by their number."""
    recorded: dict[str, dict[str, Any]] = {}
    for trace in traces:
        for step in trace.tools:
            if step.ok and step.effect == "read" and step.name in draft.capabilities and step.name not in LISTING:
                recorded.setdefault(step.name, {})[value_sha256(step.result)] = step.result
    made = [[name for name, _ in run(trace.params, {})[2]] for trace in traces[:TRIES]]
    return {
        (name, f"#{number}"): list(answers.values())
        for name, answers in recorded.items()
        for number in range(min((names.count(name) for names in made), default=0))
        if number < _NUMBERED
    }


def _shown_idle(name: str, traces: Sequence[Trace]) -> bool:
    """Tell whether two executions differ in this parameter alone, and ended alike."""
    seen: dict[str, set[str]] = {}
    for trace in traces:
        if name in trace.params:
            rest = {key: value for key, value in trace.params.items() if key != name}
            changes = [[step.name, dict(step.args)] for step in trace.tools if step.effect in {"write", "external"}]
            key = value_sha256([rest, trace.output, changes])
            seen.setdefault(key, set()).add(value_sha256(trace.params[name]))
    return any(len(values) > 1 for values in seen.values())


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list({value_sha256(value): value for value in values}.values())
