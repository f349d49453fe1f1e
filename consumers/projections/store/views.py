"""The public views: made anew when a projection's views changed or another generation took over.

To make a view takes DuckDB some milliseconds, and there are more than a hundred: only those are made anew that changed
or that stand on one that did, and in an order found by reading them.
"""

import graphlib
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import duckdb

from ..errors import DeclarationError
from .duckfile import first_line

_log = logging.getLogger("morphogen.projections")

_REFUSED = (duckdb.ProgrammingError, duckdb.DataError, duckdb.NotSupportedError)

Views = dict[str, tuple[str, str]]
"""(projection, SQL) by the name of the view."""


@dataclass(frozen=True)
class Excused:
    """Projections whose views may be left out: those of packages, and those that rows of the log call for."""

    packages: frozenset[str] = frozenset()
    called_for: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.packages or self.called_for)

    def excuses(self, projection: str, reason: str) -> bool:
        """Tell whether a view may be left out for this reason; SQL of a package that cannot be read is its own doing."""
        return projection in self.called_for or (projection in self.packages and not reason.startswith("Parser Error"))

    def remedy(self, projection: str) -> str:
        """Return what to do about a view that was left out."""
        if projection in self.called_for:
            return "load a mended text of its system, or `morphogen know drop` it"
        return "install what it stands on, or mend or uninstall its package"


def stored_views(con: duckdb.DuckDBPyConnection) -> Views:
    """Return the views as they were made last."""
    rows = con.execute("SELECT name, projection, sql FROM morphogen.views").fetchall()
    return {name: (projection, sql) for name, projection, sql in rows}


def replace_views(
    con: duckdb.DuckDBPyConnection, wanted: Views, unfinished: Iterable[str], excused: Excused = Excused()
) -> None:
    """Make the views be exactly `wanted`, in whatever order they stand on one another.

    While projections are `unfinished` (their tables not there yet, or of an older version) a view that cannot be
    made keeps its older form, or waits until the next call. Those of the projections `excused` are left out.
    Otherwise it raises DeclarationError.
    """
    have = stored_views(con)
    if have == wanted:
        return
    pending = sorted(unfinished)
    order = None if pending or excused else _order(wanted)
    if order is None:
        wanted, order = _possible(con, have, wanted, pending, excused)
    _replace(con, have, wanted, order)


def _replace(con: duckdb.DuckDBPyConnection, have: Views, wanted: Views, order: list[str]) -> None:
    """Make what is new, what changed and what stands on either, in order; leave the rest as it is."""
    stale = {name for name in have.keys() | wanted.keys() if have.get(name) != wanted.get(name)}
    named = _named(wanted, have.keys() | wanted.keys())
    for name in order:  # what a view stands on comes before it
        if named[name] & stale:
            stale.add(name)
    if not stale:  # nothing of what changed can be made yet
        return
    for name in stale & have.keys():
        con.execute(f'DROP VIEW IF EXISTS "{name}"')
    for name in order:
        if name in stale:
            projection, sql = wanted[name]
            try:
                con.execute(f'CREATE VIEW "{name}" AS {sql}')
            except _REFUSED as error:
                raise DeclarationError(f"projection {projection!r}, view {name!r}: {first_line(error)}") from error
    con.executemany("DELETE FROM morphogen.views WHERE name = ?", [[name] for name in sorted(stale)])
    rows = [[name, *wanted[name]] for name in order if name in stale]
    if rows:
        con.executemany("INSERT INTO morphogen.views VALUES (?, ?, ?)", rows)


_OVER_A_TABLE = re.compile(
    r'SELECT (?:"[^"]+", )*"[^"]+" FROM \w+\.\w+ WHERE (?!.*\b(?:FROM|JOIN)\b)', re.DOTALL | re.IGNORECASE
)
_WORDS = re.compile(r"\w+")


def _named(views: Views, names: Iterable[str]) -> dict[str, set[str]]:
    """Return for each view the names that it may stand on: every one that is a word of it, or all where it is no word."""
    known = {name.lower(): name for name in names}
    odd = {name for name in known.values() if not _WORDS.fullmatch(name)}
    found: dict[str, set[str]] = {}
    for name, (_, sql) in views.items():
        if _OVER_A_TABLE.match(sql):
            found[name] = set()  # its words are columns
        else:
            words = set(_WORDS.findall(sql.lower()))
            found[name] = {known[word] for word in words & known.keys()} | odd - {name}
            found[name].discard(name)
    return found


def _order(wanted: Views) -> list[str] | None:
    """Return an order in which the views can be made, None where their words do not tell one."""
    graph: Mapping[str, set[str]] = _named(wanted, wanted)
    try:
        return list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError:
        return None


_rehearsed: dict[str, Views] = {}  # the last one: a process that opens many stores opens alike ones


def _possible(
    con: duckdb.DuckDBPyConnection, have: Views, wanted: Views, pending: list[str], excused: Excused
) -> tuple[Views, list[str]]:
    """Return the views that there can be now, and an order in which those can be made that may have to be.

    Only what changed is rehearsed, with all that stands on it and all that either stands on.
    """
    known = have.keys() | wanted.keys()
    before, after = _named(have, known), _named(wanted, known)
    stands_on = {name: before.get(name, set()) | after.get(name, set()) for name in known}
    tried = {name for name in known if have.get(name) != wanted.get(name)}
    while more := {name for name in known - tried if stands_on[name] & tried}:
        tried |= more
    while more := {name for one in tried for name in stands_on[one]} - tried:
        tried |= more
    ours = {name: view for name, view in wanted.items() if name in tried}
    older = {name: view for name, view in have.items() if name in tried}
    words = {word for _, sql in (*ours.values(), *older.values()) for word in _WORDS.findall(sql.lower())}
    every = con.execute("SELECT schema_name, sql FROM duckdb_tables() WHERE NOT internal ORDER BY ALL").fetchall()
    tables = [(schema, sql) for schema, sql in every if schema == "main" or schema.lower() in words]
    key = repr((sorted(ours.items()), sorted(older.items()), pending, excused, tables))
    if key not in _rehearsed:
        _rehearsed.clear()
        _rehearsed[key] = _rehearse(tables, ours, older, pending, excused)
    made = _rehearsed[key]
    return {name: view for name, view in wanted.items() if name not in tried} | made, list(made)


def _rehearse(
    tables: list[tuple[str, str]], wanted: Views, have: Views, unfinished: list[str], excused: Excused
) -> Views:
    """Find the order in which views can be made, on empty copies of the tables: an error ends a transaction."""
    with duckdb.connect(":memory:") as scratch:
        scratch.execute("; ".join(f"CREATE SCHEMA IF NOT EXISTS {schema}" for schema in {row[0] for row in tables}))
        scratch.execute("; ".join(sql.rstrip(";") for _, sql in tables))
        made, failed = _create(scratch, wanted)
        for name, reason in failed.items() if not unfinished else ():
            if not excused.excuses(wanted[name][0], reason):
                raise DeclarationError(f"projection {wanted[name][0]!r}, view {name!r}: {reason}")
        kept, _ = _create(scratch, {name: have[name] for name in failed if name in have})
    if waiting := sorted(failed.keys() - kept.keys()):
        if unfinished:
            _log.warning("views %s wait until %s is built", ", ".join(waiting), ", ".join(unfinished))
        for name in waiting if not unfinished else ():
            _log.warning(
                "view %r is left out: projection %r, which declares it, cannot make it: %s; %s",
                name, wanted[name][0], failed[name], excused.remedy(wanted[name][0]),
            )  # fmt: skip
    return {**made, **kept}


def _create(con: duckdb.DuckDBPyConnection, views: Views) -> tuple[Views, dict[str, str]]:
    """Create what can be created; return it in the order that worked, and the reason for each view that cannot."""
    made: Views = {}
    left = dict(views)
    while left:
        failed: dict[str, str] = {}
        for name, view in left.items():
            try:
                con.execute(f'CREATE VIEW "{name}" AS {view[1]}')
                made[name] = view
            except _REFUSED as error:
                failed[name] = first_line(error)
        if len(failed) == len(left):
            return made, failed
        left = {name: left[name] for name in failed}
    return made, {}
