"""The public views: made anew when a projection's views changed or another generation took over."""

import logging
from collections.abc import Iterable

import duckdb

from ..errors import DeclarationError
from .duckfile import first_line

_log = logging.getLogger("morphogen.projections")

Views = dict[str, tuple[str, str]]
"""(projection, SQL) by the name of the view."""


def stored_views(con: duckdb.DuckDBPyConnection) -> Views:
    """Return the views as they were made last."""
    rows = con.execute("SELECT name, projection, sql FROM morphogen.views").fetchall()
    return {name: (projection, sql) for name, projection, sql in rows}


def replace_views(con: duckdb.DuckDBPyConnection, wanted: Views, unfinished: Iterable[str]) -> None:
    """Make the views be exactly `wanted`, in whatever order they stand on one another.

    While projections are `unfinished` (their tables not there yet, or of an older version) a view that cannot be
    made keeps its older form, or waits until the next call. Otherwise it raises DeclarationError.
    """
    have = stored_views(con)
    if have == wanted:
        return
    pending = sorted(unfinished)
    tables = con.execute("SELECT schema_name, sql FROM duckdb_tables() WHERE NOT internal ORDER BY ALL").fetchall()
    key = repr((sorted(wanted.items()), sorted(have.items()), pending, tables))
    if key not in _rehearsed:
        _rehearsed.clear()
        _rehearsed[key] = _rehearse(tables, wanted, have, pending)
    made = _rehearsed[key]
    for name in have:
        con.execute(f'DROP VIEW IF EXISTS "{name}"')
    for name, (_, sql) in made.items():
        con.execute(f'CREATE VIEW "{name}" AS {sql}')
    con.execute("DELETE FROM morphogen.views")
    con.executemany("INSERT INTO morphogen.views VALUES (?, ?, ?)", [[n, p, sql] for n, (p, sql) in made.items()])


_rehearsed: dict[str, Views] = {}  # the last one: a process that opens many stores opens alike ones


def _rehearse(tables: list[tuple[str, str]], wanted: Views, have: Views, unfinished: list[str]) -> Views:
    """Find the order in which views can be made, on empty copies of the tables: an error ends a transaction."""
    with duckdb.connect(":memory:") as scratch:
        scratch.execute("; ".join(f"CREATE SCHEMA IF NOT EXISTS {schema}" for schema in {row[0] for row in tables}))
        scratch.execute("; ".join(sql.rstrip(";") for _, sql in tables))
        made, failed = _create(scratch, wanted)
        if failed and not unfinished:
            name, reason = next(iter(failed.items()))
            raise DeclarationError(f"projection {wanted[name][0]!r}, view {name!r}: {reason}")
        kept, _ = _create(scratch, {name: have[name] for name in failed if name in have})
    if waiting := sorted(failed.keys() - kept.keys()):
        _log.warning("views %s wait until %s is built", ", ".join(waiting), ", ".join(unfinished))
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
            except (duckdb.CatalogException, duckdb.BinderException, duckdb.ParserException) as error:
                failed[name] = first_line(error)
        if len(failed) == len(left):
            return made, failed
        left = {name: left[name] for name in failed}
    return made, {}
