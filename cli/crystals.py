"""`crystals list`, `crystals show`, `crystals diff`: which tools there are, what they are made of, how they do."""

import contextlib
import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morphogen.schemas import MorphogenError, json_text, jsonable

from .app import app, settings_of
from .crystals_shown import (
    attempt_row,
    guards_of,
    of_attempt,
    of_file,
    of_version,
    print_document,
    table_of,
    version_rows,
)
from .saying import echo, harmless

if TYPE_CHECKING:
    from morphogen.bus import Bus
    from morphogen.consumers.crystallizer.past import Past
    from morphogen.consumers.crystallizer.registry import Version

crystals = typer.Typer(
    help="Tools that were made of what is done often: list them, look at them, make them, move them, carry them.",
    no_args_is_help=True,
)
app.add_typer(crystals, name="crystals")

_NAME = re.compile(r"(?:tool_|g\d+-)?([0-9a-f]+)")
_CANDIDATES = (
    "signature", "template", "uses", "success", "wilson_lower", "priority", "saving_microusd", "net_value_microusd",
    "break_even_uses", "attempts", "last_reason",
)  # fmt: skip


@crystals.command("list")
def list_tools(
    context: typer.Context,
    candidates: Annotated[
        bool, typer.Option("--candidates", help="The families that a tool would pay for, the most urgent first.")
    ] = False,
    failed: Annotated[bool, typer.Option("--failed", help="The attempts that came to nothing, and why.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every version, also what is retired.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the tools, with the version that is called, or what waits to be one."""
    if candidates and failed:
        raise typer.BadParameter("choose one: --candidates or --failed")
    if candidates:
        rows = _candidates(context)
        empty = "no candidates: a family needs 5 uses and 95% success, and no active tool"
    else:
        with past_of(context) as (_, past):
            if failed:
                rows = [attempt_row(past, one) for one in past.registry.attempts.values() if one.failed is not None]
                empty = "no attempt has failed"
            else:
                rows = [row for row in version_rows(past) if everything or row.pop("shown")]
                empty = "no tools yet; `morphogen crystals list --candidates` shows what would pay for one"
    for row in rows:
        row.pop("shown", None)
        if as_json:
            echo(json_text(row))
    if not as_json:
        table_of(rows) if rows else echo(empty)


@crystals.command()
def show(
    context: typer.Context,
    key: Annotated[
        str, typer.Argument(help="A tool (or its first characters), TOOL@VERSION, a family, an attempt, or a file.")
    ],
    source: Annotated[bool, typer.Option("--source", help="Only the tool's text.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")] = False,
) -> None:
    """Show a version: what it is made of, what it was proven on, what guards it, how it did, and its text."""
    path = Path(key)
    if path.is_file():
        document = of_file(path)
    else:
        with past_of(context) as (_, past):
            attempt = past.registry.attempts.get(key)
            document = of_version(past, chosen(past, key)) if attempt is None else of_attempt(past, attempt)
    text = document.pop("source", "")
    if source:
        echo(text, nl=False)
    elif as_json:
        echo(json.dumps(jsonable({**document, "source": text}), indent=2))
    else:
        print_document(document)
        if text:
            echo(f"\n{harmless(text)}", nl=False)


@crystals.command()
def diff(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="A tool, or its first characters.")],
    old: Annotated[int | None, typer.Argument(help="A version. Default: the one before the other.")] = None,
    new: Annotated[int | None, typer.Argument(help="Another version. Default: the newest.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")] = False,
) -> None:
    """Show how two versions of a tool differ: their text, and their guards."""
    with past_of(context) as (_, past):
        tool = past.registry.tools[chosen(past, key, version=False).tool]
    numbers = sorted(tool.versions)
    later = numbers[-1] if new is None else new
    earlier = max((one for one in numbers if one < later), default=None) if old is None else old
    for number in (earlier, later):
        if number not in tool.versions:
            known = ", ".join(map(str, numbers))
            raise MorphogenError(
                f"{tool.name} has no {'other version' if number is None else f'version {number}'}: {known}"
            )
    assert earlier is not None
    one, other = tool.versions[earlier].made, tool.versions[later].made
    lines = list(_changed(one.source.splitlines(), other.source.splitlines(), earlier, later, "text"))
    guards = list(_changed(guards_of(one), guards_of(other), earlier, later, "guards"))
    if as_json:
        echo(json.dumps({"tool": tool.name, "old": earlier, "new": later, "text": lines, "guards": guards}))
        return
    for line in (*lines, *guards):
        echo(line)
    if not lines and not guards:
        echo(f"versions {earlier} and {later} of {tool.name} have the same text and the same guards")


@contextlib.contextmanager
def past_of(context: typer.Context) -> Iterator["tuple[Bus, Past]"]:
    """Yield an open bus, and all that the log says of tools."""
    from morphogen.bus import Bus
    from morphogen.consumers.crystallizer.past import Past

    with Bus.open(settings_of(context), name="crystals") as bus:
        past = Past()
        past.catch_up(bus)
        yield bus, past


def chosen(past: "Past", key: str, *, least: int = 1, version: bool = True) -> "Version":
    """Return the version that `TOOL`, `TOOL@2`, a beginning of a name, or a family's signature means.

    Without a number: the active one, else the newest. A beginning has at least `least` hexadecimal digits. Raises
    MorphogenError where none or several are meant, and for a number where a whole tool is meant (`version`).
    """
    name, at, number = key.partition("@")
    if at and not version:
        raise MorphogenError(f"{key!r} names a version, and this is done to a whole tool: leave out @{number}")
    found = _named(past, name)
    if not found:
        raise MorphogenError(f"no tool {name!r}: `morphogen crystals list` shows what there is")
    if len(found) > 1:
        raise MorphogenError(f"{name!r} begins {len(found)} tools ({', '.join(found[:4])}): write more of it")
    if len(_digits(name)) < least and found[0] != f"tool_{_digits(name)}":
        raise MorphogenError(f"{name!r} is short for what changes a tool: write at least {least} digits of {found[0]}")
    tool = past.registry.tools[found[0]]
    if at:
        if not number.isdecimal() or int(number) not in tool.versions:
            known = ", ".join(map(str, sorted(tool.versions)))
            raise MorphogenError(f"{tool.name} has no version {number!r}: {known}")
        return tool.versions[int(number)]
    return tool.newest if tool.active is None else tool.versions[tool.active]


def _named(past: "Past", name: str) -> list[str]:
    """Return the tools that a name, or its beginning, means."""
    digits = _digits(name)
    if not digits:
        return []
    wanted = f"tool_{digits}"
    return [wanted] if wanted in past.registry.tools else [
        tool for tool in sorted(past.registry.tools) if tool.startswith(wanted)
    ]  # fmt: skip


def _digits(name: str) -> str:
    """Return the hexadecimal digits by which a name knows its tool; nothing where it names none."""
    found = _NAME.fullmatch(name)
    return "" if found is None else found[1]


def _candidates(context: typer.Context) -> list[dict[str, Any]]:
    from morphogen.consumers.projections.sql.query import query

    found = query(
        f"SELECT {', '.join(_CANDIDATES)} FROM crystallization_candidates", settings=settings_of(context), wait=True
    )
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows()]
    for row in rows:
        row.update({name: round(value, 3) for name, value in row.items() if isinstance(value, float)})
    return rows


def _changed(one: list[str], other: list[str], old: int, new: int, what: str) -> Iterator[str]:
    named = (f"version {old} ({what})", f"version {new} ({what})")
    return difflib.unified_diff(one, other, *named, lineterm="")
