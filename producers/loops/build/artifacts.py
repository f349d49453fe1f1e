"""The artifacts of a program, made when a run is over: written whole into the workspace, and registered in the log.

Made twice from the same log they are the same bytes, so a run that was killed while it built them builds them again.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from morphogen.schemas import ArtifactSaved
from morphogen.schemas.knowledge import tree
from morphogen.schemas.knowledge.errors import EvaluateError, KnowledgeError
from morphogen.schemas.knowledge.evaluate import Scope, evaluate, expand

from ..errors import ToolFailed, ToolRefused, WorkspaceError
from ..sweep.errors import MeasureError
from ..sweep.reading import TrialFailed
from ..sweep.warm import WarmWorker
from . import plots
from .errors import BuildFailed
from .gather import Findings, Sweep, gather
from .report import report
from .sections import named_sections, section_text
from .tables import csv_text, item_rows, json_lines, markdown, rows_of

if TYPE_CHECKING:
    from ..context import LoopContext

KINDS = {".md": "report", ".png": "plot", ".csv": "csv", ".json": "json"}
_PYTHON = "python:"
_TIMEOUT = 300.0  # seconds for a generator of the workspace


@dataclass(frozen=True)
class Wanted:
    """One artifact: its name, the generator that makes it, what it is made from, and what else is said of it."""

    name: str
    generator: str
    findings: Findings
    rows: list[Mapping[str, Any]] | None
    options: Mapping[str, Any]


def build_artifacts(context: "LoopContext") -> list[ArtifactSaved]:
    """Make every artifact of the loop's own system, and return those that are in the log after that.

    Raises BuildFailed, which names the artifact; what was made before it stays.
    """
    program = context.program
    system = program.system_of(program.find_loop(context.loop))
    prefix = f"{system}." if system else ""
    chosen = [one for name, one in program.artifacts.items() if name.startswith(prefix)]
    if not chosen:
        return []
    past = context.past()
    findings = gather(past, program, run=context.run, loop=context.loop, system=system)
    known = {
        (one.event.name, one.event.sha256): one.event for one in past if isinstance(one.event, ArtifactSaved)
    }  # fmt: skip
    saved: list[ArtifactSaved] = []
    for artifact in chosen:
        files = _made(artifact, findings, context, system)
        for name, data in files.items():
            saved.append(_kept(name, data, artifact, context, known))
    return saved


def _kept(
    name: str,
    data: bytes,
    artifact: tree.Artifact,
    context: "LoopContext",
    known: Mapping[tuple[str, str | None], ArtifactSaved],
) -> ArtifactSaved:
    digest = hashlib.sha256(data).hexdigest()
    try:
        context.workspace.write(name, data)
    except (WorkspaceError, ToolRefused) as error:
        raise BuildFailed(f"artifact {name}: {error}") from error
    event = ArtifactSaved(
        name=name,
        uri=(Path(context.workspace.root) / name).as_uri(),
        kind=PurePosixPath(name).suffix.removeprefix(".") or "file",
        sha256=digest,
        size=len(data),
        metadata={"loop": context.loop, "program": context.program.sha256, "artifact": artifact.name},
    )
    if (name, digest) not in known:
        context.record(event)
    return event


def _made(artifact: tree.Artifact, findings: Findings, context: "LoopContext", system: str | None) -> dict[str, bytes]:
    """Return the files of an artifact: itself, and pictures beside a report."""
    given = {one.key: one.value for one in artifact.properties}
    scope = context.program.scope(context.variables, system=system)
    name = artifact.name
    try:
        if "content" in given and "generator" not in given:
            return {name: _content(given["content"], context, scope).encode()}
        narrowed, rows = _input(given.get("input"), findings, context)
        options = {key: _plain(value, scope) for key, value in given.items() if key not in ("input", "content")}
        generator = str(options.pop("generator", KINDS.get(PurePosixPath(name).suffix, "table")))
        wanted = Wanted(name, generator, narrowed, rows, options)
        if generator.startswith(_PYTHON):
            return {name: _by_python(wanted, context)}
        if generator not in _GENERATORS:
            raise BuildFailed(
                f"no generator is called {generator!r}: {', '.join(_GENERATORS)} or python:module:function"
            )
        return _GENERATORS[generator](wanted)
    except (EvaluateError, KnowledgeError, ToolFailed, ToolRefused, MeasureError, TrialFailed) as error:
        raise BuildFailed(f"artifact {name}: {error}") from error
    except BuildFailed as error:
        raise BuildFailed(f"artifact {name}: {error}") from error


def _input(
    expr: tree.Expr | None, findings: Findings, context: "LoopContext"
) -> tuple[Findings, list[Mapping[str, Any]] | None]:
    """Return what an artifact is made from: everything, the items of a case, one sweep, or the rows of a view."""
    match expr:
        case None | tree.Field(base=tree.Name(name="trace"), name="all") | tree.Name(name="trace"):
            return findings, None
        case tree.Call(name="trace.all", args=(case,)):
            name = _dotted(case).rpartition(".")[2]
            items = tuple(one for one in findings.items if one.case == name)
            return replace(findings, items=items, sweeps=()), item_rows(items)
        case tree.Name(name=name) if name in {one.started.sweep for one in findings.sweeps}:
            return replace(findings, sweeps=tuple(one for one in findings.sweeps if one.started.sweep == name)), None
        case tree.Name(name=name) if any(view.rpartition(".")[2] == name for view in context.program.views):
            result = context.call("tool.sql", {"query": f'SELECT * FROM "{name}"'})
            return findings, list(result.output or [])
    raise BuildFailed(f"input: write trace.all, trace.all(Case), a sweep or a view, not `{_dotted(expr)}`")


def _content(expr: tree.Expr, context: "LoopContext", scope: Scope) -> str:
    names = named_sections(expr)
    if names is not None:
        return section_text(context.program.module, context.program.text, names)
    if isinstance(expr, tree.Literal | tree.Template):
        return expand(expr, scope)
    value = evaluate(expr, scope)
    return value if isinstance(value, str) else json_lines(value)


def _by_python(wanted: Wanted, context: "LoopContext") -> bytes:
    """Call a function of the workspace with the findings, in a process of its own; it returns the artifact's text."""
    root = Path(context.workspace.root)
    beside = Path(context.program.path).absolute().parent
    worker = WarmWorker(
        wanted.generator.removeprefix(_PYTHON), [root, beside], cwd=root, glance=context.check
    )  # fmt: skip
    try:
        result, _ = worker.call({"findings": wanted.findings.plain(), "options": dict(wanted.options)}, _TIMEOUT)
    finally:
        worker.close()
    return (result if isinstance(result, str) else json_lines(result)).encode()


def _by_report(wanted: Wanted) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    stem = PurePosixPath(wanted.name)

    def draw(kind: str, sweep: Sweep) -> str | None:
        name = f"{stem.stem}.{sweep.started.sweep}.{kind}.png"
        files[str(stem.with_name(name))] = plots.best_so_far(sweep) if kind == "best" else plots.parameters(sweep)
        return name

    title = str(wanted.options.get("title", wanted.findings.loop))
    text = report(wanted.findings, title=title, draw=draw)
    return {**files, wanted.name: text.encode()}


def _by_table(wanted: Wanted) -> dict[str, bytes]:
    return {wanted.name: markdown(_rows(wanted)).encode()}


def _by_csv(wanted: Wanted) -> dict[str, bytes]:
    return {wanted.name: csv_text(_rows(wanted)).encode()}


def _by_json(wanted: Wanted) -> dict[str, bytes]:
    value = wanted.findings.plain() if wanted.rows is None else wanted.rows
    return {wanted.name: json_lines(value).encode()}


def _by_plot(wanted: Wanted) -> dict[str, bytes]:
    """Draw `y:` over `x:` where they are given, else the first sweep: `kind: best` (default) or `parameters`."""
    options, findings = wanted.options, wanted.findings
    if "y" in options:
        x = options.get("x")
        return {wanted.name: plots.fields(findings.items, str(options["y"]), None if x is None else str(x))}
    if not findings.sweeps:
        raise BuildFailed("a plot without a sweep needs `y:`, a field of its trace items")
    draw = plots.parameters if options.get("kind") == "parameters" else plots.best_so_far
    return {wanted.name: draw(findings.sweeps[0])}


_GENERATORS: dict[str, Callable[[Wanted], dict[str, bytes]]] = {
    "report": _by_report,
    "table": _by_table,
    "csv": _by_csv,
    "json": _by_json,
    "plot": _by_plot,
}


def _rows(wanted: Wanted) -> list[Mapping[str, Any]]:
    return list(rows_of(wanted.findings)) if wanted.rows is None else wanted.rows


def _plain(expr: tree.Expr, scope: Scope) -> Any:
    """Return a property's value; a bare or dotted name that means nothing is a word."""
    if isinstance(expr, tree.Name | tree.Field) and _dotted(expr).split(".")[0] not in scope.names:
        return _dotted(expr)
    return expand(expr, scope) if isinstance(expr, tree.Template) else evaluate(expr, scope)


def _dotted(expr: tree.Expr | None) -> str:
    if isinstance(expr, tree.Name):
        return expr.name
    if isinstance(expr, tree.Field):
        return f"{_dotted(expr.base)}.{expr.name}"
    return type(expr).__name__.lower()
