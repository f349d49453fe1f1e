"""Runs of loops as people read them, and as other programs do."""

from typing import TYPE_CHECKING, Any

from rich.table import Table

from morphogen.schemas import json_text

from .saying import echo
from .tables import print_rows

if TYPE_CHECKING:
    from morphogen.producers.loops.state import Outcome, State, Waiting


def print_waiting(waiting: "Waiting") -> None:
    """Print what a suspended run asks."""
    if waiting.system:
        echo(waiting.system)
        echo()
    echo(waiting.prompt)


def summary(state: "State") -> dict[str, Any]:
    """Return a run in one flat object."""
    return {
        "run": state.run,
        "loop": state.loop,
        "kind": state.kind,
        "program": state.program,
        "sha256": state.sha256,
        "status": state.status,
        "reason": state.reason,
        "live": state.live,
        "workspace": state.workspace,
        "steps": state.steps,
        "attempts": state.attempt,
        "started": state.started,
        "finished": state.finished or None,
        "handled": state.handled,
    }


def whole(state: "State") -> dict[str, Any]:
    """Return all of a run that its state holds."""
    steps = [
        {"path": path, "ok": one.ok, "planned": one.planned, "output": one.output, "error": one.error, "duration_ns": one.duration_ns}
        for path, one in state.outcomes.items()
    ]  # fmt: skip
    return {
        **summary(state),
        "steps_done": steps,
        "steps_begun": list(state.pending),
        "variables": {name: value for name, value in state.variables.items() if "\0" not in name},
        "facts": state.facts,
        "rules_fired": state.rules,
        "trace": state.trace,
        "waiting": state.waiting,
        "verdict": state.verdict,
    }


def print_state(state: "State") -> None:
    """Print how a run stands."""
    head = f"{state.run}: {state.kind} {state.loop}, {state.status}{f' ({state.reason})' if state.reason else ''}"
    echo(head)
    echo(
        f"program {state.program} {state.sha256[:12]}, workspace {state.workspace}, {'live' if state.live else 'dry run'}"
    )
    table = Table("step", "result", "ms", "output", show_edge=False, header_style="bold")
    rows = [*state.outcomes.items(), *((path, None) for path in state.pending)]
    print_rows(table, rows, lambda row: _step(*row), newest_last=True)
    for name, value in state.facts.items():
        echo(f"fact {name}: {'unknown' if value is None else str(value).lower()}")
    for name, count in state.rules.items():
        echo(f"rule {name}: fired {count} times")
    if state.waiting is not None:
        echo(f"waits at {state.waiting.path}: {state.waiting.reason}\n{state.waiting.prompt}")
    if state.verdict is not None:
        for condition in state.verdict.conditions:
            echo(f"success {condition.get('condition', '')}: {condition.get('value', condition.get('error'))}")
        for name, number in state.verdict.metrics.items():
            echo(f"metric {name}: {number:g}")


def _step(path: str, one: "Outcome | None") -> tuple[object, ...]:
    if one is None:
        return path, "begun", "", ""
    result = "planned" if one.planned else "done" if one.ok else "failed"
    return path, result, f"{one.duration_ns / 1e6:.1f}", short(one.error or one.output)


def short(value: Any) -> str:
    """Return a value on one line of at most 100 characters."""
    text = value if isinstance(value, str) else json_text(value)
    line = " ".join(text.split())
    return line if len(line) <= 100 else f"{line[:97]}..."
