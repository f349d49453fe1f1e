"""`know load`, `know drop`, `know loaded` and `know diff`: knowledge in the log, and what other knowledge would have said."""

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import DIFFERENT, FAILED, settings_of
from .bars import bar
from .know import know
from .saying import echo

if TYPE_CHECKING:
    from morphogen.bus.settings import Settings
    from morphogen.consumers.projections.facts.compare import Comparison, FactDifference


@know.command()
def load(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(help="Knowledge modules, FILE.mk, or of the library: std.training.", metavar="FILE..."),
    ],
    again: Annotated[bool, typer.Option("--again", help="Also where this very text is in force.")] = False,
) -> None:
    """Put modules into the log: from then on their cases are tables, and their facts are followed, on every machine."""
    from morphogen.consumers.projections.facts.loading import clash_of, emit_all, in_force, load_events
    from morphogen.schemas.knowledge.program import load as read_program

    events: list[Any] = []
    for file in files:
        made = load_events(read_program(file), str(file))
        if not made:
            echo(f"morphogen: {file} has no system, so there is nothing to follow: only systems are loaded", err=True)
            raise typer.Exit(FAILED)
        events += [one for one in made if one not in events]
    settings = settings_of(context)
    known = {} if again else in_force(settings)
    fresh = [one for one in events if any(known.get(system) != one.sha256 for system in one.systems)]
    if clash := clash_of(settings, fresh) if fresh else None:
        echo(f"morphogen: {clash}", err=True)
        raise typer.Exit(FAILED)
    places = dict(zip(map(id, fresh), emit_all(settings, fresh), strict=True))
    for one in events:
        place = places.get(id(one))
        said = "in force already, as it stands" if place is None else f"loaded at message {place}"
        echo(f"{', '.join(one.systems)}: {said}")


@know.command()
def drop(
    context: typer.Context,
    system: Annotated[str, typer.Argument(help="A system, as `know loaded` names it.")],
    reason: Annotated[str, typer.Option(help="Why, for those who read the log.")] = "",
) -> None:
    """Follow a system no longer: its tables and views go, its items stay in the log."""
    from morphogen.consumers.projections.facts.loading import emit_all, in_force, users_of
    from morphogen.schemas import KnowledgeDropped
    from morphogen.schemas.knowledge.diagnostics import did_you_mean

    settings = settings_of(context)
    known = in_force(settings)
    if system not in known:
        advice = did_you_mean(system, list(known)) or (f"there are {', '.join(known)}" if known else "none is loaded")
        echo(f"morphogen: no system {system!r} is loaded; {advice}", err=True)
        raise typer.Exit(FAILED)
    if users := users_of(settings, system):
        echo(f"morphogen: {', '.join(users)} stands on {system!r}: drop that first", err=True)
        raise typer.Exit(FAILED)
    (last,) = emit_all(settings, [KnowledgeDropped(system=system, reason=reason)])
    echo(f"{system}: dropped at message {last}")


@know.command()
def loaded(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False
) -> None:
    """Show which systems are followed, from which text, and what of them cannot run."""
    from morphogen.consumers.projections.sql.query import query

    settings = settings_of(context)
    rows = query(
        "SELECT system, path, sha256, seq, loaded FROM knowledge WHERE in_force ORDER BY system",
        wait=True,
        settings=settings,
    ).rows()
    refused = query(
        "SELECT system, fact, refused FROM knowledge_facts WHERE refused IS NOT NULL UNION ALL "
        "SELECT system, name, refused FROM knowledge_rules WHERE refused IS NOT NULL", settings=settings,
    ).rows()  # fmt: skip
    advice = query(
        "SELECT system, name, advice::VARCHAR FROM knowledge_rules WHERE NOT executable AND refused IS NULL",
        settings=settings,
    ).rows()
    if as_json:
        document = [
            {
                "system": system, "path": path, "sha256": sha256, "seq": seq, "loaded": str(when),
                "refused": {name: why for owner, name, why in refused if owner == system},
                "not_executable": {name: json.loads(text or "[]") for owner, name, text in advice if owner == system},
            }
            for system, path, sha256, seq, when in rows
        ]  # fmt: skip
        echo(json.dumps(document, ensure_ascii=False, indent=2))
        return
    for system, path, sha256, seq, when in rows:
        echo(f"{system}  {path}  {sha256[:12]}  message {seq}, {str(when)[:19]}")
        for owner, name, why in refused:
            if owner == system:
                echo(f"  {name} cannot run: {why}")
        for owner, name, text in advice:
            if owner == system:
                echo(f"  {name} is advice, not executable: {'; '.join(json.loads(text or '[]')) or 'no condition'}")
    if not rows:
        echo("no knowledge is loaded: `morphogen know load FILE` loads a module", err=True)


@know.command()
def diff(
    context: typer.Context,
    old: Annotated[Path, typer.Argument(help="A module, FILE.mk.")],
    new: Annotated[Path, typer.Argument(help="The same module, changed.")],
    runs: Annotated[
        list[str] | None, typer.Option("--runs", "-r", help="Only these runs; several with commas.")
    ] = None,
    shown: Annotated[int, typer.Option(min=0, help="First differing places that are shown of each fact.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")] = False,
) -> None:
    """Show what a changed module would have said of the recorded past. Exit code 3 where anything would be different."""
    from morphogen.consumers.projections.facts.compare import Comparing
    from morphogen.schemas.knowledge.program import load as read_program

    comparing = Comparing(read_program(old), read_program(new), runs=_split(runs), shown=shown)
    asyncio.run(_replay(settings_of(context), comparing.feed))
    if comparing.missing:
        named = ", ".join(map(repr, sorted(comparing.missing)))
        echo(f"morphogen: the log has nothing of run {named}; `morphogen sql 'FROM runs'` shows those it has", err=True)
        raise typer.Exit(FAILED)
    result = comparing.result
    if result.apart:
        echo("the two modules have no fact in common: is one a changed form of the other?", err=True)
    if as_json:
        document = {"differs": result.differs, "items": result.items, "facts": [_plain(one) for one in result.facts]}
        echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        _print(result)
    if result.differs:
        raise typer.Exit(DIFFERENT)


def _split(runs: list[str] | None) -> list[str] | None:
    if not runs:
        return None
    names = [name for given in runs for name in given.split(",") if name]
    if not names:
        raise typer.BadParameter("--runs names no run; name some, or leave it out for all")
    return names


async def _replay(settings: "Settings", feed: Any) -> None:
    """Give all batches of the past to `feed`."""
    from morphogen.bus.bodies import whole
    from morphogen.bus.connection import connect
    from morphogen.bus.past import extent, past
    from morphogen.bus.streams import ensure_streams
    from morphogen.consumers.projections.fold.batch import Batch, Lane

    conn = await connect(settings, name="know diff")
    try:
        await ensure_streams(conn)
        end = (await extent(conn, settings)).last
        lanes: dict[Lane, int] = {}
        with bar("replaying") as tell:
            async for messages in whole(conn, past(conn, settings, upto=end, holes=True)):
                batch = await asyncio.to_thread(Batch.read, messages, lanes=lanes)
                await asyncio.to_thread(feed, batch)
                batch.release()
                tell(messages[-1].seq, end)
    finally:
        await conn.close()


def _plain(one: "FactDifference") -> dict[str, Any]:
    from morphogen.schemas import jsonable

    found: dict[str, Any] = jsonable({**asdict(one), "differs": one.differs})
    return found


def _print(result: "Comparison") -> None:
    for one in result.facts:
        if one.reason:
            echo(f"{one.fact}: cannot run: {one.reason}")
            continue
        if one.status == "same":
            continue
        echo(
            f"{one.fact}: {one.status}; holds for {one.old_holds:,} of {one.old_items:,} items before and "
            f"{one.new_holds:,} of {one.new_items:,} after, {one.changed_items:,} judged otherwise; "
            f"{one.old_changes:,} changes before, {one.new_changes:,} after"
        )
        for place in one.first:
            where = f"{place.seq}.{place.idx}" + (f".{place.part}" if place.part else "")
            echo(f"  {where} {place.run}: {_said(place.old, place.old_values)} -> {_said(place.new, place.new_values)}")
    same = sum(one.status == "same" for one in result.facts)
    verdict = "something would have been different" if result.differs else "nothing would have been different"
    echo(f"{result.items:,} items, {len(result.facts)} facts, {same} of them unchanged: {verdict}")


def _said(truth: bool | None, values: dict[str, Any]) -> str:
    from morphogen.schemas import json_text

    word = {True: "holds", False: "does not hold", None: "unknown"}[truth]
    return f"{word} {json_text(values)}" if values else word
