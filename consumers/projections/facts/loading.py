"""Texts of modules on their way into the log and out of it: what is written, what is in force, who stands on whom."""

import functools
import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from morphogen.schemas import Event, KnowledgeLoaded

if TYPE_CHECKING:
    from morphogen.bus.settings import Settings
    from morphogen.schemas.knowledge.program import Program
    from morphogen.schemas.knowledge.tree import System


def load_events(program: "Program", path: str) -> list[KnowledgeLoaded]:
    """Return what loading a module says: its text and, before it, those of the modules with systems that it uses."""
    from morphogen.schemas.knowledge.loading import library
    from morphogen.schemas.knowledge.program import load_text

    events: list[KnowledgeLoaded] = []
    for target, module in program.used_modules.items():
        systems = [system.name for system in module.systems]
        if systems:
            text = program.used[target]
            used = load_text(text, target, used=program.used, sealed=True)
            events.append(
                KnowledgeLoaded(
                    name=target, path=target, sha256=used.sha256, text=text, systems=systems, used=dict(used.used)
                )
            )
    systems = [system.name for system in program.module.systems]
    if systems:
        events.append(
            KnowledgeLoaded(
                name=path if path in library() else Path(path).stem, path=path, sha256=program.sha256, text=program.text, systems=systems,
                used=dict(program.used),
            )
        )  # fmt: skip
    return events


def emit_all(settings: "Settings", events: Sequence[Event]) -> list[int]:
    """Write events into the log, each in a message of its own; return the sequences."""
    from morphogen.bus.bus import Bus

    if not events:
        return []
    with Bus.open(settings) as bus:
        return [bus.emit(event, msg_id=f"knowledge.{uuid.uuid4().hex}").seq for event in events]


def in_force(settings: "Settings") -> dict[str, str]:
    """Return the systems that are followed, with the hash of the text that holds for each."""
    from ..sql.query import query

    return dict(query("SELECT system, sha256 FROM knowledge WHERE in_force", wait=True, settings=settings).rows())


def clash_of(settings: "Settings", events: Sequence[KnowledgeLoaded]) -> str | None:
    """Say which of these systems, or of their cases and facts, another loaded system has the name of in SQL; None where none."""
    from ..sql.query import query

    new = {system: one.text for one in events for system in one.systems}
    loads = query("SELECT system, text FROM knowledge WHERE in_force ORDER BY system", wait=True, settings=settings)
    kept = [row for row in loads.rows() if row[0] not in new]
    systems_of = _reader()
    taken = {word: name for system, text in kept for word, name in _words(system, systems_of(text))}
    for system, text in new.items():
        for word, name in _words(system, systems_of(text)):
            there = taken.setdefault(word, name)
            if there.partition(".")[0] != system:
                return f"`{name}` and `{there}` are both `{word}` in SQL: rename one of them, or drop its system"
    return None


def _reader() -> "Callable[[str], Sequence[System]]":
    """Return what gives the systems of a text, and parses each text once: many systems may be of one text."""
    from morphogen.schemas.knowledge.parse import parse

    return functools.cache(lambda text: parse(text).module.systems)


def _words(system: str, systems: "Sequence[System]") -> list[tuple[str, str]]:
    from morphogen.schemas.knowledge.cases import words_of

    declared = [one for one in systems if one.name == system]
    return [(word, name) for one in declared for word, name, _ in words_of(one)]


def users_of(settings: "Settings", system: str) -> list[str]:
    """Return the loaded systems whose module uses the one that declares `system`."""
    from ..sql.query import query

    rows = query(
        "SELECT k.system, e.body::JSON::VARCHAR FROM knowledge k JOIN events e USING (seq, idx) "
        "WHERE k.in_force AND e.type = 'knowledge.loaded' ORDER BY k.system", settings=settings,
    ).rows()  # fmt: skip
    users = []
    systems_of = _reader()
    for user, body in rows:
        loaded = json.loads(body)
        used = map(systems_of, loaded["used"].values())
        if system not in loaded["systems"] and any(one.name == system for systems in used for one in systems):
            users.append(user)
    return users
