"""`kv list`, `kv show`: which KV states there are and who holds them; what a state, a session or a file is."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from morphogen.schemas import MorphogenError, json_text
from morphogen.schemas.kv import FILE, TIERS

from .app import app, settings_of
from .moments import moment
from .saying import echo, word
from .sizes import size
from .tables import print_rows

if TYPE_CHECKING:
    from morphogen.bus.settings import Settings
    from morphogen.kernels.kv import KvState

kv = typer.Typer(
    help="KV caches: what is held where, into files and back, from worker to worker.", no_args_is_help=True
)
app.add_typer(kv, name="kv")

_COLUMNS = (
    "state", "session", "worker", "tier", "held", "tokens", "size", "hits", "since_ns", "model", "transport", "place", "what",
    "reason",
)  # fmt: skip


@kv.command("list")
def list_states(
    context: typer.Context,
    worker: Annotated[str | None, typer.Option(help="Only of this worker.")] = None,
    session: Annotated[str | None, typer.Option(help="Only of this session.")] = None,
    tier: Annotated[str | None, typer.Option(help="Only in this tier: device, memory, disk, blobs, file.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what is held no more.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the KV states that are held, newest first, and how much other engines hold."""
    if tier is not None and tier not in (*TIERS, FILE):
        raise typer.BadParameter(f"--tier {tier!r} is none of {', '.join((*TIERS, FILE))}")
    settings = settings_of(context)
    parts, params = ["true"] if everything else ["held"], []
    for column, value in (("worker", worker), ("session", session), ("tier", tier)):
        if value is not None:
            parts.append(f"{column} = ?")
            params.append(value)
    found = _rows(
        settings,
        f"SELECT state, session, worker, tier, held, tokens, size, hits, epoch_ns(since) AS since_ns, model, transport, place, "
        f"what, reason FROM kv_states WHERE {' AND '.join(parts)} ORDER BY seq DESC, idx DESC, tier",
        params,
    )
    others = [] if session is not None else _others(settings, worker, tier)
    if as_json:
        for row in (*found, *others):
            echo(json_text(row))
        return
    if found:
        _table(found, everything)
    for row in others:
        echo(f"{word(row['engine'])} {word(row['worker'])}: {row['blocks']:,} blocks in {word(row['tier'])}")
    if not found and not others:
        echo(
            "no KV states"
            if everything
            else "no KV states are held beside what workers have at hand; --all shows those that were, `morphogen kv show SESSION` tells of a session"
        )


@kv.command()
def show(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="A state (or its first characters), a session, or a file.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")] = False,
) -> None:
    """Show what a state is, where it lies and what became of it; a file is verified to its last byte."""
    path = Path(key)
    document = describe(path) if path.is_file() else _described(settings_of(context), key)
    if as_json:
        echo(json.dumps(document, indent=2, default=str))
        return
    for name, value in document.items():
        if isinstance(value, list):
            echo(f"{name}")
            for row in value:
                echo("  " + "  ".join(word(part) for part in row.values() if part is not None))
        elif isinstance(value, dict):
            echo(f"{name}")
            for inner, text in value.items():
                echo(f"  {word(inner):<14} {word(text)}")
        else:
            echo(f"{name:<16} {word(value)}")


def describe(path: Path) -> dict[str, Any]:
    """Return what a file of a KV state says of itself, its payload seen to fit its checksum. Raises KvRefused."""
    from morphogen.kernels.kv import open_kv

    state = open_kv(path)
    state.verify()
    return {"file": str(path), "verified": True, **_of(state)}


def _of(state: "KvState") -> dict[str, Any]:
    from morphogen.schemas.kv import BLOCK, block_hashes

    made, header = state.fingerprint, state.header
    hashes = block_hashes(state.tokens, made.digest)
    return {
        "tokens": state.count,
        "size": state.size,
        "payload": state.payload_size,
        "checksum": state.checksum,
        "root": made.digest,
        "blocks": f"{len(hashes)} of {BLOCK} tokens" + (f", the last one {hashes[-1]}" if hashes else ""),
        "logits": "of the next token" if header.logits else "none",
        "made": None if header.made_ns is None else moment(header.made_ns),
        "fingerprint": {name: _plain(getattr(made, name)) for name in made.__struct_fields__},
        **({"details": header.details} if header.details else {}),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items()) or "none"
    if isinstance(value, tuple):
        return ", ".join(f"{lora.sha256[:12]} x{lora.scale:g}" for lora in value) or "none"
    return value


def _described(settings: "Settings", key: str) -> dict[str, Any]:
    """Return what the tables say of a state or a session. Raises MorphogenError where they know none, or several."""
    sessions = _rows(settings, "SELECT * REPLACE (began::VARCHAR AS began, changed::VARCHAR AS changed) FROM kv_sessions "
                               "WHERE session = $1", [key])  # fmt: skip
    document, chosen = _meant(settings, key, sessions)
    places = _rows(
        settings,
        "SELECT state, worker, tier, CASE WHEN held THEN 'held' ELSE what || coalesce(': ' || reason, '') END AS status, "
        "tokens, size, hits, transport, place, epoch_ns(since) AS since_ns, root, block, blocks, tip, model, checksum, "
        "fingerprint::JSON::VARCHAR AS fingerprint FROM kv_states WHERE state IN (SELECT unnest($1::VARCHAR[])) "
        "ORDER BY held DESC, changed DESC",
        [chosen],
    )
    named = document.get("state")  # the session's newest; without one, the newest that is held
    about = next((row for row in places if named is None or row["state"] == named), None)
    if about is not None:
        document.update(
            {name: about[name] for name in ("state", "model", "tokens", "size", "root", "block", "blocks", "tip")}
        )
        if about["fingerprint"]:
            document["fingerprint"] = json.loads(about["fingerprint"])
    document["places"] = [
        {name: row[name] for name in ("state", "tier", "worker", "status", "transport", "place")} for row in places
    ]
    history = _rows(
        settings,
        "SELECT epoch_ns(time) AS time, what, worker, other, transport, tokens, size, reason "
        "FROM kv_transfers WHERE state IN (SELECT unnest($1::VARCHAR[])) OR session = $2 ORDER BY seq, idx",
        [chosen, key],
    )
    document["history"] = [{**row, "time": moment(row["time"])} for row in history]
    return {name: value for name, value in document.items() if value is not None and value != []}


def _meant(settings: "Settings", key: str, sessions: list[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Return the session that is meant, if one is, and the states: that state, all of that session, or the one begun so."""
    states = _rows(
        settings,
        "SELECT DISTINCT state, session IS NOT DISTINCT FROM $1 AS inside FROM kv_states "
        "WHERE session = $1 OR starts_with(state, $1) ORDER BY state",
        [key],
    )
    begun, inside = [row["state"] for row in states], [row["state"] for row in states if row["inside"]]
    if key in begun:
        return {}, [key]
    if sessions:
        newest = sessions[0]["state"]  # which another session may have told of last
        return sessions[0], inside if newest is None or newest in inside else [*inside, newest]
    if inside:
        return {}, inside
    if not begun:
        raise MorphogenError(f"no state, session or file {key!r}: `morphogen kv list --all` shows what is known")
    if len(begun) > 1:
        few = ", ".join(begun[:4])
        raise MorphogenError(f"{key!r} begins {len(begun)} states ({few}, ...): write more of it")
    return {}, begun


def _others(settings: "Settings", worker: str | None, tier: str | None) -> list[dict[str, Any]]:
    parts, params = ["engine IS NOT NULL"], []
    for column, value in (("worker", worker), ("tier", tier)):
        if value is not None:
            parts.append(f"{column} = ?")
            params.append(value)
    return _rows(
        settings,
        f"SELECT engine, worker, tier, blocks, longest FROM kv_holders WHERE {' AND '.join(parts)} ORDER BY ALL",
        params,
    )


def _rows(settings: "Settings", sql: str, params: list[Any]) -> list[dict[str, Any]]:
    from morphogen.consumers.projections.sql.query import query

    result = query(sql, params=params or None, wait=True, settings=settings)
    return [dict(zip(result.columns, row, strict=True)) for row in result.rows()]


def _table(found: list[dict[str, Any]], everything: bool) -> None:
    heads = ["state", "session", "worker", "tier", "tokens", "size", "hits", "age", "place"]
    table = Table(*heads, *(["status"] if everything else []), show_edge=False, header_style="bold")
    now = time.time_ns()

    def cells(row: dict[str, Any]) -> list[Any]:
        told = [
            row["state"], row["session"], row["worker"], row["tier"], row["tokens"], size(row["size"] or 0), row["hits"],
            _age(now - row["since_ns"]), row["place"],
        ]  # fmt: skip
        status = "held" if row["held"] else f"{row['what']}: {row['reason']}"
        return [*told, status] if everything else told

    print_rows(table, found, cells)


def _age(ns: int) -> str:
    seconds = max(0, ns) / 1e9
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
