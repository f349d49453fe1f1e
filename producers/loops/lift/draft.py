"""Stumps as the text of a knowledge module, with where each number comes from."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morphogen.schemas import TrialFinished

from ..build.gather import Sweep
from ..build.tables import shown
from ..sweep.errors import SweepError
from .stumps import Stump, stumps

_WORDS = {">=": "at_least", "<": "below", "==": "is", "!=": "is_not"}
_SIGNS = {">=": ">=", "<": "<", "==": "is", "!=": "is not"}


@dataclass(frozen=True)
class Lifted:
    """A drafted module: its text, and what it rests on."""

    text: str
    stumps: tuple[Stump, ...]
    trials: int


def lift(
    runs: Mapping[str, Sequence[Sweep]],
    *,
    alpha: float = 0.05,
    name: str | None = None,
    format_text: Callable[[str], str] | None = None,
) -> Lifted:
    """Draft knowledge from the sweeps of these runs, which must be over the same parameters and metric.

    Raises SweepError where there is no trial, or where sweeps cannot be read together.
    """
    sweeps = [(run, sweep) for run, found in runs.items() for sweep in found]
    if not any(sweep.trials for _, sweep in sweeps):
        raise SweepError(f"no sweep with trials in {', '.join(runs) or 'no run'}: see `morphogen loop list`")
    first = sweeps[0][1]
    for run, sweep in sweeps[1:]:
        if _question(sweep) != _question(first):
            raise SweepError(
                f"run {run}, sweep {sweep.started.sweep}: another metric, objective or set of parameters than "
                f"{first.started.sweep}: lift them apart"
            )
    trials = [one for _, sweep in sweeps for one in sweep.trials]
    found = tuple(stumps(trials, maximize=first.maximize, alpha=alpha))
    text = _module(sweeps, trials, found, alpha, name or f"{_word(first.started.sweep, upper=True)}Lifted")
    return Lifted(format_text(text) if format_text else text, found, len(trials))


def _question(sweep: Sweep) -> Any:
    return sorted(sweep.parameters), sweep.started.metric, sweep.started.objective


def _module(
    sweeps: Sequence[tuple[str, Sweep]],
    trials: Sequence[TrialFinished],
    found: Sequence[Stump],
    alpha: float,
    name: str,
) -> str:
    first = sweeps[0][1]
    good = sum(one.state in ("measured", "pruned") for one in trials)
    hosts = sorted({one.host for one in trials if one.host}) or ["a host that was not recorded"]
    wanted = f"{first.started.objective} {first.started.metric}"
    lines = [
        "// Drafted by `morphogen know lift` from measurements: read it before you rely on it.",
        f"// {wanted}: {len(trials)} trials, {good} of them with a number, on {', '.join(hosts)}.",
        *(
            f"// run {_plain(run)}, sweep {_plain(sweep.started.sweep)}: {len(sweep.trials)} trials"
            for run, sweep in sweeps
        ),
        f"// A cut is here where chance alone would show one as large anywhere in less than {alpha:.0%} of such sweeps.",
        "",
    ]
    if not found:
        return "\n".join(
            [*lines, "// No parameter makes a difference that these measurements can tell from noise.", ""]
        )
    metric = first.started.metric.rpartition(".")[2]
    fields = [*((axis, _kind(axis, trials)) for axis in first.parameters), (metric, "float?")]
    lines += [f"system {name} {{", "trace_schema {", "variant Lifted {", "case Configuration {"]
    lines += [f"{axis}: {kind}" for axis, kind in fields if kind is not None]
    lines += ["}", "}", "}", "", "knowledge {"]
    for stump in found:
        lines += _claims(stump, first, trials, sweeps)
    return "\n".join([*lines, "}", "}", ""])


def _claims(
    stump: Stump, sweep: Sweep, trials: Sequence[TrialFinished], sweeps: Sequence[tuple[str, Sweep]]
) -> list[str]:
    cut = stump.cut
    word = f"{cut.parameter}_{_WORDS[cut.op]}_{_word(shown(cut.value))}"
    spoken = f"{cut.parameter} {_SIGNS[cut.op]} {shown(cut.value)}"
    name = word if stump.kind == "better" else f"fails_with_{word}"
    if stump.kind == "better":
        said = (
            f"{sweep.started.metric} has a median of {shown(stump.here)} where {spoken}, {shown(stump.there)} elsewhere"
        )
    else:
        said = f"{stump.here:.0%} of the configurations fail where {spoken}, {stump.there:.0%} elsewhere"
    values = _values(cut.parameter, trials)
    kept = [value for value in values if cut.holds({cut.parameter: value}) == (stump.kind == "better")]
    title = f"Prefer {spoken}" if stump.kind == "better" else f"Avoid {spoken}"
    return [
        "",
        f"// {stump.support} trials on this side, {stump.others} on the other, adjusted p = {stump.p:.2g}",
        f"fact {name}_measured {{",
        f"description: {_text(said)}",
        f"confidence: {stump.bound:.3f}",
        f"share: {stump.confidence:.3f}",
        f"support: {stump.support}",
        f"source: {_text(', '.join(run for run, _ in sweeps))}",
        "}",
        f"fact {name}(t: Lifted.Configuration) {{ return t.{cut.parameter} {cut.op} {_literal(cut.value)} }}",
        f"rule {_text(title)} {{",
        f"when: {name}",
        f"apply: {_text(said)}",
        *([f"parameter {cut.parameter}: {_literal(kept)}"] if kept and len(kept) < len(values) else []),
        "}",
    ]


def _values(parameter: str, trials: Sequence[TrialFinished]) -> list[Any]:
    """Return the values of a parameter that were tried; numbers in order."""
    found = list(
        {json.dumps(one.config.get(parameter), sort_keys=True): one.config.get(parameter) for one in trials}.values()
    )
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)
    return sorted(found) if numbers else found


def _kind(parameter: str, trials: Sequence[TrialFinished]) -> str | None:
    """Return the type of a parameter as the language names it, None where it has none."""
    values = _values(parameter, trials)
    for kind, types in (("boolean", (bool,)), ("int", (int,)), ("float", (int, float)), ("string", (str,))):
        if all(isinstance(value, types) and (kind == "boolean" or not isinstance(value, bool)) for value in values):
            return kind
    return None


def _literal(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(value: str) -> str:
    """Return a string of the language: what would begin a template or end the line is taken out of its meaning."""
    safe = " ".join(value.split()).replace("{{", "{ {").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{safe}"'


def _plain(value: str) -> str:
    return " ".join(value.split())


def _word(value: str, *, upper: bool = False) -> str:
    """Return text as a name: letters, digits and underscores."""
    word = (
        re.sub(r"\W+", "_", value.replace("-", "minus_", 1) if value.startswith("-") else value).strip("_") or "empty"
    )
    if upper:
        return "".join(part[:1].upper() + part[1:] for part in word.split("_")) if not word[0].isdigit() else f"S{word}"
    return word
