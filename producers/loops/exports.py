"""What a run leaves in its workspace for other tools: `metrics.json` and `trace.json`."""

import json
from typing import Any

from morphogen.schemas import jsonable

from .journal import Journal
from .state import State
from .workspace import Workspace

METRICS, TRACE = "metrics.json", "trace.json"


def write_exports(journal: Journal, workspace: Workspace) -> None:
    """Write both files. Raises WorkspaceError."""
    workspace.export(METRICS, _json(metrics_of(journal.state)))
    workspace.export(TRACE, _json(trace_of(journal)))


def metrics_of(state: State) -> dict[str, Any]:
    """Return the verdict and the metrics of a run."""
    verdict = state.verdict
    return {
        "run": state.run,
        "loop": state.loop,
        "program": state.program,
        "sha256": state.sha256,
        "status": state.status,
        "success": None if verdict is None else verdict.success,
        "metrics": {} if verdict is None else verdict.metrics,
        "checks": {} if verdict is None else verdict.checks,
        "conditions": [] if verdict is None else verdict.conditions,
        "steps": state.steps,
    }


def trace_of(journal: Journal) -> list[dict[str, Any]]:
    """Return the run's steps and trace items in the order of the log."""
    found: list[dict[str, Any]] = [
        {
            "step": path,
            "ok": outcome.ok,
            "output": outcome.output,
            "planned": outcome.planned,
            "error": outcome.error,
            "duration_ns": outcome.duration_ns,
        }
        for path, outcome in journal.state.outcomes.items()
    ]
    found.extend(
        {"step": item.path, "type": item.type, "time": item.time, "fields": item.body} for item in journal.state.trace
    )
    return found


def _json(value: Any) -> bytes:
    return (json.dumps(jsonable(value), indent=2, ensure_ascii=False) + "\n").encode()
