"""`know`: check, format, explain and draw knowledge modules, and serve editors.

Exit codes: 0 fine, 1 errors were found (or `fmt --check` would change a file), 2 wrong use, or a file that is not there.
"""

import difflib
import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from morphogen.bus.place import replace

from .app import FAILED, WRONG_USE, app
from .saying import echo
from .standard import needed_input, needed_output

if TYPE_CHECKING:
    from morphogen.schemas.knowledge.diagnostics import Diagnostic
    from morphogen.schemas.knowledge.program import Program
    from morphogen.schemas.knowledge.tools import Signature

know = typer.Typer(help="Knowledge modules: check, format, explain, draw.", no_args_is_help=True)
app.add_typer(know, name="know")

_STDIN = "-"
_Files = Annotated[
    list[str], typer.Argument(help="Knowledge modules, FILE.mk; '-' reads standard input.", metavar="FILE...")
]


class GraphFormat(StrEnum):
    """How a graph is written."""

    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


@know.command()
def check(
    files: _Files,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Count warnings as errors.")] = False,
) -> None:
    """Say everything that is wrong with modules, without running anything."""
    from morphogen.schemas.knowledge.diagnostics import render, to_json
    from morphogen.schemas.knowledge.loading import Sources, examined_source, hash_of

    sources = Sources(signatures())
    worst = 0
    documents: list[dict[str, object]] = []
    for name in files:
        text = _text(name)
        if text is None:
            worst = WRONG_USE
            documents.append({"path": _path(name), "sha256": None, "ok": False, "diagnostics": []})
            continue
        path = _path(name)
        _, uses, diagnostics = examined_source(text, path, sources)
        counts = {word: sum(one.severity == word for one in diagnostics) for word in ("error", "warning", "note")}
        fine = not counts["error"] and not (strict and counts["warning"])
        worst = max(worst, 0 if fine else FAILED)
        if as_json:
            found = [to_json(one, path) for one in diagnostics]
            documents.append({"path": path, "sha256": hash_of(text, uses.texts), "ok": fine, "diagnostics": found})
            continue
        for one in diagnostics:
            echo(render(one, text, path) + "\n")
        echo(f"{path}: {_summary(counts)}")
    if as_json:
        echo(json.dumps({"ok": worst == 0, "files": documents}, ensure_ascii=False, indent=2))
    raise typer.Exit(worst)


@know.command()
def fmt(
    files: _Files,
    check_only: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 where a file would change.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Change nothing; show what would change.")] = False,
) -> None:
    """Write modules in the one layout, in place; '-' reads standard input and writes standard output."""
    from morphogen.schemas.knowledge.errors import KnowledgeError
    from morphogen.schemas.knowledge.format import format_text

    worst = 0
    for name in files:
        text = _text(name)
        if text is None:
            worst = WRONG_USE
            continue
        try:
            formatted = format_text(text)
        except KnowledgeError as error:
            if not error.diagnostics:
                raise
            echo(KnowledgeError(error.diagnostics, text, _path(name)).render(), err=True)
            worst = max(worst, FAILED)
            continue
        if diff:
            echo(_diff(text, formatted, _path(name)), nl=False)
        if (check_only or diff) and formatted != text:
            worst = max(worst, FAILED if check_only else 0)
            echo(f"{_path(name)}: would change", err=diff)
        elif name == _STDIN and not (check_only or diff):
            echo(formatted, nl=False)
        elif formatted != text:
            replace(Path(name), formatted)
            echo(f"{name}: formatted")
    raise typer.Exit(worst)


@know.command()
def explain(
    file: Annotated[str, typer.Argument(help="A knowledge module, FILE.mk; '-' reads standard input.")],
    name: Annotated[
        str | None, typer.Argument(help="One fact, rule, loop, step, ...; all of the module without it.")
    ] = None,
) -> None:
    """Put a module, or one thing of it, in plain words."""
    from morphogen.schemas.knowledge.explain import explain as explained

    echo(explained(_program(file), name))


@know.command()
def graph(
    files: _Files,
    form: Annotated[
        GraphFormat, typer.Option("--format", "-f", help="How the graph is written.")
    ] = GraphFormat.MERMAID,
) -> None:
    """Draw what leads where: cases, facts, rules, loops, artifacts. Of several files, JSON is one list."""
    from morphogen.schemas.knowledge.graph import draw, graph_of

    drawn = [draw(graph_of(_program(file)), form.value) for file in files]
    if form is GraphFormat.JSON and len(drawn) > 1:
        echo(json.dumps([json.loads(one) for one in drawn], ensure_ascii=False, indent=2))
    else:
        echo("\n".join(drawn))


@know.command()
def lsp() -> None:
    """Serve an editor over standard input and output (language server protocol)."""
    needed_input()
    needed_output()
    try:
        from .language_server import serve
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("pygls", "lsprotocol"):
            raise
        echo("morphogen: the language server needs pygls: pip install 'morphogen[lsp]'", err=True)
        raise typer.Exit(FAILED) from None
    serve(signatures())


def signatures() -> "Mapping[str, Signature]":
    """Return the tools that a module may name: ours, and those of installed packages."""
    from morphogen.producers.loops.tools.python import installed_tools
    from morphogen.schemas.knowledge.tools import TOOLS

    return {**TOOLS, **{name: tool.signature for name, tool in installed_tools().items()}}


def _program(file: str) -> "Program":
    """Return the program of a file; say what is wrong with it and leave where it cannot be used."""
    from morphogen.schemas.knowledge.errors import KnowledgeError
    from morphogen.schemas.knowledge.program import load_text

    text = _text(file)
    if text is None:
        raise typer.Exit(WRONG_USE)
    try:
        return load_text(text, _path(file), tools=signatures())
    except KnowledgeError as error:
        errors: tuple[Diagnostic, ...] = tuple(one for one in error.diagnostics if one.severity == "error")
        shown = KnowledgeError(errors, text, _path(file)).render() if errors else f"morphogen: {error}"
        echo(shown, err=True)
        raise typer.Exit(FAILED) from None


def _text(name: str) -> str | None:
    """Return what a file, or standard input, holds; None, after saying why, where it holds no text."""
    from morphogen.schemas.knowledge.errors import KnowledgeError
    from morphogen.schemas.knowledge.loading import read_text, text_of_bytes

    try:
        return text_of_bytes(needed_input().buffer.read(), _path(name)) if name == _STDIN else read_text(Path(name))
    except KnowledgeError as error:
        echo(f"morphogen: {error}", err=True)
        return None


def _path(name: str) -> str:
    return "<stdin>" if name == _STDIN else name


def _summary(counts: Mapping[str, int]) -> str:
    words = [f"{count} {word}{'' if count == 1 else 's'}" for word, count in counts.items() if count]
    return ", ".join(words) if words else "fine"


def _diff(before: str, after: str, path: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"{path} as it is", f"{path} as it would be"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
