"""`facts`: what the loaded knowledge says of the trace now, and, with --watch, as it changes."""

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import app, settings_of
from .moments import moment
from .saying import echo

if TYPE_CHECKING:
    from morphogen.bus.settings import Settings
    from morphogen.consumers.projections.facts.announce import Said

_POLL = 0.25  # seconds between looks while watching
_COLUMNS = "system, fact, run, key::VARCHAR, holds, evidence::VARCHAR, epoch_ns(since), seq, idx, part, step, event"


@app.command()
def facts(
    context: typer.Context,
    run: Annotated[str | None, typer.Option(help="Only this run.")] = None,
    module: Annotated[str | None, typer.Option("--module", help="Only this system.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also facts that do not hold.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on: show each change, and announce it on the bus.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show which facts hold, since when, and by which values."""
    from morphogen.consumers.projections.sql.query import query

    settings = settings_of(context)
    where, params = _where(run, module)
    held = "" if everything else " AND holds"
    found = query(
        f"SELECT {_COLUMNS} FROM facts_now WHERE {where}{held} ORDER BY system, fact, run, key::VARCHAR",
        params=params or None, wait=True, settings=settings,
    )  # fmt: skip
    rows = found.rows()
    if as_json:
        for row in rows:
            echo(_json_line(row))
    elif not watch or rows:
        _show(rows)
    if not watch and not as_json:
        _tell_of_none(settings, rows, run, module, everything=everything)
    if watch:
        asyncio.run(_watch(settings, run, module, as_json=as_json))


def _where(run: str | None, module: str | None) -> tuple[str, list[Any]]:
    parts, params = ["true"], []
    for column, value in (("run", run), ("system", module)):
        if value is not None:
            parts.append(f"{column} = ?")
            params.append(value)
    return " AND ".join(parts), params


def _show(rows: list[tuple[Any, ...]]) -> None:
    for system, fact, run, key, holds, evidence, since, seq, idx, part, step, _ in rows:
        place = f"{seq}.{idx}" + (f".{part}" if part else "")
        subject = ", ".join(part for part in (f"run {run}", _pairs(key)) if part)
        word = "holds" if holds else "does not hold"
        when = (
            "" if since is None else f" since {moment(since)}, {'' if step is None else f'step {step}, '}place {place}"
        )
        echo(f"{system}.{fact}  {subject}: {word}{when}")
        for name, value in json.loads(evidence or "{}").items():
            echo(f"    {name} = {_short(value)}")


def _pairs(text: str | None) -> str:
    found = json.loads(text or "{}")
    return ", ".join(f"{name} = {_short(value)}" for name, value in found.items())


def _short(value: Any) -> str:
    return "unknown" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _json_line(row: tuple[Any, ...]) -> str:
    from morphogen.schemas import jsonable
    from morphogen.schemas.moments import exact

    system, fact, run, key, holds, evidence, since, seq, idx, part, step, event = row
    return json.dumps(
        jsonable({
            "system": system, "fact": fact, "run": run, "key": json.loads(key or "{}"), "holds": holds,
            "evidence": json.loads(evidence or "{}"), "since": None if since is None else exact(since), "place": [seq, idx, part], "step": step,
            "event": event,
        }),
        ensure_ascii=False,
    )  # fmt: skip


def _tell_of_none(
    settings: "Settings", rows: list[tuple[Any, ...]], run: str | None, module: str | None, *, everything: bool
) -> None:
    from morphogen.consumers.projections.sql.query import query

    if rows:
        return
    of = "".join(f" of {what} {name!r}" for what, name in (("run", run), ("system", module)) if name is not None)
    if not query("SELECT count(*) FROM knowledge WHERE in_force", settings=settings).rows()[0][0]:
        echo("no knowledge is loaded: `morphogen know load FILE` loads a module", err=True)
    elif everything:
        echo(f"no item{of} was judged by any fact", err=True)
    else:
        echo(f"no fact{of} holds; `morphogen facts --all` shows those that do not", err=True)


async def _watch(settings: "Settings", run: str | None, module: str | None, *, as_json: bool) -> None:
    """Announce and show changes until interrupted; those that another announces are shown all the same."""
    from morphogen.bus.connection import connect
    from morphogen.bus.emit import publish_once
    from morphogen.bus.streams import ensure_streams
    from morphogen.consumers.projections.facts.announce import Announcer
    from morphogen.consumers.projections.sql.query import query

    began = query("SELECT coalesce(max(seq), 0) FROM frames", wait=True, settings=settings).rows()[0][0]
    conn = await connect(settings, name="facts")
    try:
        await ensure_streams(conn)

        async def ask(sql: str) -> list[tuple[Any, ...]]:
            return await asyncio.to_thread(lambda: query(sql, settings=settings).rows())

        async def publish(subject: str, data: bytes, msg_id: str) -> Any:
            return await publish_once(conn, subject, data, msg_id=msg_id)

        def heard(said: "Said") -> None:
            if said.seq > began and run in (None, said.run) and module in (None, said.system):
                echo(_line(said, as_json=as_json))

        announcer = Announcer(ask, publish)
        announcer.heard = heard
        while True:
            await announcer.step()
            await asyncio.sleep(_POLL)
    finally:
        await conn.close()


def _line(said: "Said", *, as_json: bool) -> str:
    from morphogen.schemas import decode, json_text

    body = decode(said.event.encode())
    if as_json:
        return json_text({"type": said.event.type, "run": said.run, "step": said.step, "cause": said.cause, **body})
    subject = body.get("fact") or body.get("rule") or body.get("hint")
    word = {
        "fact.became_true": "holds", "fact.became_false": "holds no more", "rule.fired": "fires", "hint.suggested": "suggests",
        "rule.advice": "is advice",
    }[said.event.type]  # fmt: skip
    key = "".join(f" {name} = {_short(value)}" for name, value in body.get("key", {}).items())
    values = ", ".join(f"{name} = {_short(value)}" for name, value in body.get("evidence", {}).items())
    actions = body.get("actions") or ({"suggestion": body["suggestion"]} if body.get("suggestion") else {})
    more = f" -> {json_text(actions)}" if actions else ""
    step = "" if said.step is None else f" step {said.step}"
    return f"{said.run}{step}: {said.system}.{subject}{key} {word}" + (f" ({values})" if values else "") + more
