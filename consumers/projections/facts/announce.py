"""Say on the bus what the tables found: facts that became true or false, rules that fired, advice that nobody can run.

What is said derives from rows alone: an event's id is made of the system, its text, and the place of the item that
brought it about. So it does not matter who announces, how often he is killed, or whether two do it at once: the log takes
each frame once, and the tables leave out what came twice. Items of a replay, and those from before the module was loaded,
are not announced: nobody should act on them.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import msgspec

from morphogen.bus.emit import publish_once, writer_of
from morphogen.bus.errors import BusError
from morphogen.schemas import (
    Event,
    FactBecameFalse,
    FactBecameTrue,
    HintSuggested,
    MorphogenError,
    Record,
    RuleAdvice,
    RuleFired,
    encode_frame,
    token,
)

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

    from ..store.store import Store

_log = logging.getLogger("morphogen.projections")
Ask = Callable[[str], Awaitable[list[tuple[Any, ...]]]]
"""Runs a SELECT on the tables."""
Publish = Callable[[str, bytes, str], Awaitable[Any]]
"""Stores a frame: subject, bytes, message id."""

CHUNK = 200  # events in a frame; a message of the log may bring thousands of changes
_ROWS = 20_000  # in one question
_END = 2**63 - 1
_PAUSE = 0.02  # seconds between steps, so that many small commits make one
_TRIES = (0.5, 1.0, 2.0, 5.0)  # seconds to wait after a failure
_FRONT = "f.seq, f.idx, f.part, f.run, f.step, epoch_ns(f.time), f.system, k.sha256, f.key::VARCHAR, f.evidence::VARCHAR, f.event"

_CHANGES = f"""
    SELECT {_FRONT}, f.fact, f.holds FROM facts f
    JOIN knowledge k ON k.system = f.system AND k.in_force AND f.seq > k.seq
    JOIN frames r ON r.seq = f.seq AND r.replay IS NULL
    WHERE f.seq > {{after}} AND f.seq <= {{upto}} AND (f.holds OR NOT f.first)
    ORDER BY f.seq, f.system, f.idx, f.part, f.fact
"""
_FIRED = f"""
    SELECT {_FRONT}, f.name, f.kind, a.actions::VARCHAR FROM rules_fired f
    JOIN knowledge k ON k.system = f.system AND k.in_force AND f.seq > k.seq
    JOIN frames r ON r.seq = f.seq AND r.replay IS NULL
    LEFT JOIN knowledge_rules a ON a.system = f.system AND a.kind = f.kind AND a.name = f.name
    WHERE f.seq > {{after}} AND f.seq <= {{upto}} ORDER BY f.seq, f.system, f.kind, f.idx, f.part, f.name
"""
_ADVICE = """
    SELECT k.seq, epoch_ns(k.loaded), k.system, k.sha256, a.kind, a.name, a.advice::VARCHAR, a.actions::VARCHAR
    FROM knowledge_rules a JOIN knowledge k ON k.system = a.system AND k.in_force
    WHERE NOT a.executable AND a.refused IS NULL AND k.seq > {after} ORDER BY k.seq, k.system, a.name
"""
_SAID = """
    SELECT system, sha256, run, place, family, count(*) FROM (
        SELECT (body.system)::VARCHAR AS system, (body.sha256)::VARCHAR AS sha256, run,
               (body.place[1])::BIGINT AS place, split_part(type, '.', 1) AS family
        FROM events WHERE type IN ({types}) AND seq > {since}
    ) WHERE place >= {since} GROUP BY ALL
"""
_EDGE = f"SELECT seq FROM {{table}} WHERE seq > {{after}} ORDER BY seq LIMIT 1 OFFSET {_ROWS}"
_ADVISED = """
    SELECT DISTINCT (body.system)::VARCHAR, (body.sha256)::VARCHAR FROM events WHERE type = 'rule.advice'
"""


@dataclass(frozen=True)
class Frame:
    """Events of one family that one message of the log brought about, ready to be stored."""

    subject: str
    data: bytes
    msg_id: str


@dataclass(frozen=True)
class Said:
    """One event to announce, and where it comes from."""

    event: Event
    run: str
    seq: int
    step: int | None
    time: int
    cause: str | None
    system: str
    sha256: str


class Announcer:
    """Announces, step by step, what is not yet in the log. It remembers nothing that the tables do not say."""

    def __init__(self, ask: Ask, publish: Publish) -> None:
        self._ask = ask
        self._publish = publish
        self._after = {"fact": -1, "rule": -1, "advice": -1}
        self.heard: Callable[[Said], None] | None = None
        """Called with each event that is announced, also where another announcer was first."""

    async def step(self) -> int:
        """Announce what the tables show by now; return how many frames were stored by this call."""
        done = await self._advise()
        for kind, table, query, made, types in (
            ("fact", "facts", _CHANGES, _changed, "'fact.became_true', 'fact.became_false'"),
            ("rule", "rules_fired", _FIRED, _fired, "'rule.fired', 'hint.suggested'"),
        ):
            upto = 0
            while upto < _END:
                after = self._after[kind]
                edge = await self._ask(_EDGE.format(table=table, after=after))
                upto = int(edge[0][0]) if edge else _END
                rows = await self._ask(query.format(after=after, upto=upto))
                if rows:
                    said = await self._ask(_SAID.format(types=types, since=int(rows[0][0])))
                    already = {(system, sha, run, seq, family): n for system, sha, run, seq, family, n in said}
                    for frame in frames(map(made, rows), already, self.heard):
                        await self._publish(frame.subject, frame.data, frame.msg_id)
                        done += 1
                self._after[kind] = upto if upto < _END else int(rows[-1][0]) if rows else after
        return done

    async def _advise(self) -> int:
        rows = await self._ask(_ADVICE.format(after=self._after["advice"]))
        if not rows:
            return 0
        known = {tuple(row) for row in await self._ask(_ADVISED)}
        fresh = [_advice(row) for row in rows if (row[2], row[3]) not in known]
        found = frames(fresh, {}, self.heard)
        for frame in found:
            await self._publish(frame.subject, frame.data, frame.msg_id)
        self._after["advice"] = int(rows[-1][0])
        return len(found)


def frames(
    found: Iterable[Said],
    already: dict[tuple[str, str, str, int, str], int],
    heard: Callable[[Said], None] | None = None,
) -> list[Frame]:
    """Return events as frames: those of one system, run and message together, in pieces that never come out otherwise.

    `already` says how many events of a message are in the log; whole pieces of them are left out.
    """
    made = []
    for (system, sha256, run, seq, family), group in groupby(found, key=_together):
        events = list(group)
        there = already.get((system, sha256, run, seq, family), 0)
        for start in range(0, len(events), CHUNK):
            piece = events[start : start + CHUNK]
            if heard is not None:
                for one in piece:
                    heard(one)
            if start + len(piece) <= there:
                continue
            msg_id = f"facts.{family}.{system}.{sha256}.{token(run)}.{seq}.{start // CHUNK}"
            records = [
                Record(
                    n + 1,
                    one.event.type,
                    one.event.version,
                    one.step,
                    one.time,
                    msgspec.Raw(one.event.encode()),
                    one.cause,
                )
                for n, one in enumerate(piece)
            ]
            data = encode_frame(records, run=run, attempt=0, rank=0, writer=writer_of(msg_id), family=family)
            made.append(Frame(f"morphogen.log.{token(run)}.{token(family)}.0-0", data, msg_id))
    return made


def _together(one: Said) -> tuple[str, str, str, int, str]:
    return one.system, one.sha256, one.run, one.seq, one.event.family


def _changed(row: Sequence[Any]) -> Said:
    seq, idx, part, run, step, time, system, sha256, key, evidence, cause, fact, holds = row
    cls = FactBecameTrue if holds else FactBecameFalse
    event = cls(
        fact=fact, system=system, key=_loaded(key), evidence=_loaded(evidence), place=[seq, idx, part], sha256=sha256
    )
    return Said(event, run, seq, step, time, cause, system, sha256)


def _fired(row: Sequence[Any]) -> Said:
    seq, idx, part, run, step, time, system, sha256, key, evidence, cause, name, kind, actions = row
    known: dict[str, Any] = {
        "system": system, "key": _loaded(key), "evidence": _loaded(evidence), "place": [seq, idx, part], "sha256": sha256,
    }  # fmt: skip
    does = _loaded(actions)
    event: Event
    if kind == "hint":
        event = HintSuggested(hint=name, suggestion=does.get("suggestion", []), **known)
    else:
        event = RuleFired(rule=name, actions=does, **known)
    return Said(event, run, seq, step, time, cause, system, sha256)


def _advice(row: Sequence[Any]) -> Said:
    seq, time, system, sha256, _, name, conditions, actions = row
    event = RuleAdvice(
        rule=name, system=system, conditions=json.loads(conditions or "[]"), actions=_loaded(actions), sha256=sha256
    )
    return Said(event, "", seq, None, time, None, system, sha256)


def _loaded(text: str | None) -> dict[str, Any]:
    found = json.loads(text or "{}")
    return found if isinstance(found, dict) else {"value": found}


async def announce_until_cancelled(store: "Store", conn: "Connection") -> None:
    """Announce beside a projector, from the store itself, until this task is cancelled."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    changed.set()

    async def ask(sql: str) -> list[tuple[Any, ...]]:
        def run() -> list[tuple[Any, ...]]:
            with contextlib.closing(store.cursor()) as cursor:
                rows: list[tuple[Any, ...]] = cursor.execute(sql).fetchall()
                return rows

        return await asyncio.to_thread(run)

    async def publish(subject: str, data: bytes, msg_id: str) -> Any:
        return await publish_once(conn, subject, data, msg_id=msg_id)

    def wake() -> None:
        if _followed(store):
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(changed.set)

    announcer = Announcer(ask, publish)
    stop = store.listen(wake)
    tries = 0
    try:
        while True:
            await changed.wait()
            changed.clear()
            try:
                if _followed(store):
                    await announcer.step()
                tries = 0
            except (BusError, MorphogenError) as error:
                _log.warning("facts are announced later: %s", error)
                await asyncio.sleep(_TRIES[min(tries, len(_TRIES) - 1)])
                tries += 1
                changed.set()
            except Exception as error:  # noqa: BLE001  a table that is being swapped, say; announcing must not end the rest
                _log.debug("announcing failed: %s", error, exc_info=True)
                await asyncio.sleep(_TRIES[min(tries, len(_TRIES) - 1)])
                tries += 1
                changed.set()
            await asyncio.sleep(_PAUSE)
    finally:
        stop()


def _followed(store: "Store") -> bool:
    """Tell whether any system is followed: without one there is nothing to ask the tables for at every commit."""
    return any(one.projection.name.startswith("facts_") and one.live for one in store.generations)
