"""Tools, versions, attempts and packages as rows and documents for people."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from morphogen.schemas import json_text

from .saying import echo, word
from .tables import print_rows

if TYPE_CHECKING:
    from morphogen.consumers.crystallizer.past import Past
    from morphogen.consumers.crystallizer.registry import Attempt, Version


def version_rows(past: "Past") -> list[dict[str, Any]]:
    """Return a row for each version; `shown` says whether a short list has it."""
    rows = []
    for tool in sorted(past.registry.tools.values(), key=lambda one: one.name):
        for number, one in sorted(tool.versions.items()):
            career = past.careers.versions[tool.name, number]
            rows.append(
                {
                    "tool": tool.name,
                    "version": number,
                    "state": one.state,
                    "goal": past.families.template(tool.signature),
                    "calls": one.calls,
                    "succeeded": one.successes,
                    "missed": one.missed,
                    "shadows": f"{one.agreed}/{one.shadows}",
                    "lower": round(career.lower(), 3),
                    "mean_ms": round(one.duration_ns / one.calls / 1e6, 2) if one.calls else None,
                    "signed": one.made.key[:16] if one.made.key else None,
                    "shown": one.state in {"active", "shadow"} or (tool.active is None and one is tool.newest and one.state != "retired"),
                }
            )  # fmt: skip
    return rows


def attempt_row(past: "Past", one: "Attempt") -> dict[str, Any]:
    """Return a failed attempt in a line."""
    asked, failed = one.requested, one.failed
    assert failed is not None
    return {
        "attempt": one.id,
        "goal": past.families.template(failed.signature) or failed.signature,
        "maker": "" if asked is None else asked.maker,
        "executions": 0 if asked is None else len(asked.made_from) + len(asked.held_out),
        "stage": failed.stage,
        "cost_microusd": past.spending.told(one.id),
        "reason": failed.reason,
    }


def of_version(past: "Past", one: "Version") -> dict[str, Any]:
    """Return all that is known of a version."""
    from morphogen.consumers.crystallizer.lifecycle import Life, lacking

    made, career = one.made, past.careers.versions[one.tool, one.number]
    attempt = past.registry.attempts.get(made.attempt)
    said = made.provenance
    stages = () if attempt is None else attempt.checked
    return {
        "tool": one.tool,
        "version": one.number,
        "state": f"{one.state}: {one.reason}" if one.reason else one.state,
        "family": made.signature,
        "goal": past.families.template(made.signature),
        "made": f"by {said.get('maker', '?')} from {len(said.get('made_from') or ())} executions, "
        f"held to {len(said.get('held_out') or ())} others",
        "attempt": made.attempt,
        "cost_microusd": past.spending.told(made.attempt),
        "signed": made.key,
        "imported": said.get("imported"),
        "parent": made.parent,
        "parameters": {param.name: _parameter(param) for param in made.params},
        "returns": made.returns,
        "capabilities": made.capabilities,
        "effects": made.effects,
        "guards": guards_of(made),
        "doubts": said.get("doubts") or [],
        "gauntlet": [_stage(stage) for stage in stages],
        "life": {
            "shadow runs": f"{one.agreed} of {one.shadows} agreed",
            "calls": f"{one.successes} of {one.calls} succeeded",
            "guards missed": ", ".join(f"{name}: {count}" for name, count in one.misses.items()) or 0,
            "lower bound": round(career.lower(), 3),
            "for promotion": (lacking(career, Life()) or "nothing is lacking") if one.state == "shadow" else None,
        },
        "source_sha256": made.source_sha256,
        "source": made.source,
    }


def of_attempt(past: "Past", one: "Attempt") -> dict[str, Any]:
    """Return all that is known of an attempt; what it drafted is shown, and never loaded."""
    asked, drafted, failed = one.requested, one.drafted, one.failed
    return {
        "attempt": one.id,
        "family": "" if asked is None else asked.signature,
        "goal": None if asked is None else past.families.template(asked.signature),
        "maker": "" if asked is None else asked.maker,
        "came to": f"failed at {failed.stage}: {failed.reason}" if failed else f"version {one.version[1]}" if one.version else "not ended",
        "cost_microusd": past.spending.told(one.id),
        "made from": [] if asked is None else asked.made_from,
        "held out": [] if asked is None else asked.held_out,
        "doubts": [] if drafted is None else drafted.doubts,
        "gauntlet": [_stage(stage) for stage in one.checked],
        "source": "" if drafted is None else drafted.source,
    }  # fmt: skip


def of_file(path: Path) -> dict[str, Any]:
    """Return what a package says of itself; whether it is true is found out where it is imported."""
    from morphogen.consumers.crystallizer.packages import read_package

    found = read_package(path)
    made = found.registered
    return {
        "file": str(path),
        "sha256": found.sha256,
        "signed": found.signer or "by nobody",
        "tool": made.tool,
        "version": made.number,
        "goal": found.template,
        "executions": [trace.execution for trace in found.traces],
        "parameters": {param.name: _parameter(param) for param in made.params},
        "returns": made.returns,
        "capabilities": made.capabilities,
        "effects": made.effects,
        "guards": guards_of(made),
        "gauntlet": [f"{_stage(stage)} (there)" for stage in found.checked],
        "source": made.source,
    }


def table_of(rows: list[dict[str, Any]]) -> None:
    """Print rows, of which there is one at least, as a table; a terminal wraps, a pipe does not."""
    table = Table(show_edge=False, header_style="bold")
    for name, value in rows[0].items():
        number = isinstance(value, int | float)
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    print_rows(table, rows, lambda row: row.values())


def guards_of(made: Any) -> list[str]:
    """Return the guards of a version, a line each."""
    return [f"{one.kind} {one.subject}: {json_text(one.expected)}" for one in made.guards]


def _parameter(param: Any) -> str:
    ranged = param.minimum is not None and param.maximum is not None
    between = f", {param.minimum:g} to {param.maximum:g}" if ranged else ""
    seen = ", ".join(repr(value) for value in param.seen[:3])
    return f"{param.type}{between}{f', such as {seen}' if seen else ''}"


def _stage(stage: Any) -> str:
    counted = f" {stage.matched}/{stage.tried}" if stage.tried else ""
    return f"{stage.stage}: {'passed' if stage.ok else 'failed'}{counted}{f': {stage.reason}' if stage.reason else ''}"


def print_document(document: dict[str, Any]) -> None:
    """Print a document as names and values, a line each, none of which commands a terminal; what is empty is left out."""
    for name, value in document.items():
        if value is None or value in ([], {}, ""):
            continue
        if isinstance(value, list):
            echo(name)
            for line in value:
                echo(f"  {word(line)}")
        elif isinstance(value, dict):
            echo(name)
            for inner, text in value.items():
                if text is not None:
                    echo(f"  {word(inner):<16} {word(text)}")
        else:
            echo(f"{name:<14} {word(value)}")
