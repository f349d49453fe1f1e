"""Tell a statement that only reads from all others, before it is run.

DuckDB's own parser decides how many statements there are and of which kind. What a reading statement may call is
decided by name: of the functions that stand in a FROM clause only those known to be harmless pass (the rest read
files, raw memory, settings, or run other text), and a few scalar ones are barred. A barred word that is no call, a
column or a string, is no offence: then the parser's tree is asked.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from .errors import SqlRefused

LONGEST = 1 << 20
_REMEMBERED, _MOST_REMEMBERED = 4096, 1024  # characters of a text, and texts
_passed: set[str] = set()  # whether a text only reads follows from the text alone, and the same questions come again

_HARMLESS = frozenset(
    [
        "duckdb_columns",
        "duckdb_constraints",
        "duckdb_databases",
        "duckdb_dependencies",
        "duckdb_functions",
        "duckdb_indexes",
        "duckdb_keywords",
        "duckdb_memory",
        "duckdb_optimizers",
        "duckdb_schemas",
        "duckdb_sequences",
        "duckdb_tables",
        "duckdb_types",
        "duckdb_variables",
        "duckdb_views",
        "generate_series",
        "histogram",
        "histogram_values",
        "icu_calendar_names",
        "json_each",
        "json_tree",
        "pg_timezone_names",
        "pragma_collations",
        "pragma_database_size",
        "pragma_platform",
        "pragma_show",
        "pragma_storage_info",
        "pragma_table_info",
        "pragma_version",
        "query_table",
        "range",
        "repeat",
        "repeat_row",
        "summary",
        "test_all_types",
        "unnest",
    ]
)
_BARRED = frozenset(
    [
        "sleep_ms",
        "write_log",
        "variant_bytes_to_variant",
        "parse_duckdb_log_message",
        "json_execute_serialized_sql",
        "getenv",
        "current_setting",
        "nextval",
        "finalize",
        "combine",
        "setseed",
    ]
)
_WRITES = frozenset({"INSERT_QUERY_NODE", "UPDATE_QUERY_NODE", "DELETE_QUERY_NODE", "MERGE_QUERY_NODE"})
_WORD = re.compile(r"[^\W\d]\w*")
_DATA_CHANGES = frozenset({"insert", "update", "delete", "merge"})
_LEADING = re.compile(r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/|\()*", re.DOTALL)
_EXPLAIN = re.compile(r"explain(?:\s+analyze)?(?:\s*\([^()]*\))?(?=[\s(])", re.IGNORECASE)
_BEFORE_PIVOT = frozenset({"PIVOT", "SELECT", "WITH", "FROM", "SUMMARIZE", "DESCRIBE"})
_KINDS = {
    "TRANSACTION": "it would end or begin a transaction",
    "COPY": "it reads or writes files",
    "IMPORT": "it reads files",
    "EXPORT": "it writes files",
    "ATTACH": "it opens other databases",
    "DETACH": "it closes databases",
    "LOAD": "it loads extensions",
    "INSTALL": "it fetches extensions",
    "SET": "it changes settings",
    "VARIABLE_SET": "it changes settings",
    "PRAGMA": "it may change settings (see DESCRIBE and SHOW)",
    "CALL": "it calls a procedure",
    "PREPARE": "it prepares a statement; pass parameters with the query",
    "EXECUTE": "it runs a prepared statement; pass parameters with the query",
}


def check(cursor: Any, sql: str) -> None:
    """Raise SqlRefused unless `sql` is one statement that reads; DuckDB's own error where it does not parse."""
    if not isinstance(sql, str):
        raise SqlRefused(f"refused: a query is text, not {type(sql).__name__}")
    if sql in _passed:
        return
    _check(cursor, sql)
    if len(sql) <= _REMEMBERED:
        if len(_passed) >= _MOST_REMEMBERED:
            _passed.clear()
        _passed.add(sql)


def _check(cursor: Any, sql: str) -> None:
    if len(sql) > LONGEST:
        raise SqlRefused(f"refused: the text has {len(sql)} characters, at most {LONGEST} are read")
    if "\0" in sql:
        raise SqlRefused("refused: the text holds a zero character")
    statements = cursor.extract_statements(sql)
    if not statements:
        raise SqlRefused("refused: there is no statement in the text; write SELECT ...")
    if len(statements) > 1:
        raise SqlRefused(f"refused: one statement at a time, this text holds {len(statements)}")
    kind = statements[0].type.name
    text = _LEADING.sub("", sql, count=1)
    if kind == "EXPLAIN":
        match = _EXPLAIN.match(text)
        if match is None or _EXPLAIN.match(_LEADING.sub("", text[match.end() :], count=1)):
            raise SqlRefused("refused: only EXPLAIN [ANALYZE] of a SELECT is answered")
        _check(cursor, text[match.end() :])
        return
    first = (_WORD.match(text) or [kind])[0].upper()
    pivot = kind == "MULTI" and first in _BEFORE_PIVOT and "pivot" in set(_words(sql))
    if kind != "SELECT" and not pivot:
        reason = _KINDS.get(first) or _KINDS.get(kind, "a query only reads")
        raise SqlRefused(f"refused: {first} is not answered, {reason}; write a SELECT")
    _check_calls(cursor, sql, pivot)


def _check_calls(cursor: Any, sql: str, pivot: bool) -> None:
    words = set(_words(sql))
    suspects = words & (_barred(cursor) | _DATA_CHANGES)
    suspects |= {word for word in words if word.startswith("__internal")}
    if not suspects:
        return
    tree = None if pivot else _tree(cursor, sql)
    if tree is None:
        # A PIVOT has no tree to look at, so a barred word is refused wherever it stands.
        raise SqlRefused(f"refused: {min(suspects)} may not stand in this kind of statement; write a SELECT")
    for name, value in _named(tree):
        if name == "type" and value in _WRITES:
            raise SqlRefused(f"refused: a query only reads, and this one has {str(value).split('_')[0]} inside")
        if name == "function_name" and str(value).casefold() in suspects - _DATA_CHANGES:
            raise SqlRefused(
                f"refused: {value}() is not for queries, which read the tables of the store and nothing else"
            )


def _words(sql: str) -> Iterator[str]:
    return (word.casefold() for word in _WORD.findall(sql))


def _barred(cursor: Any) -> frozenset[str]:
    return _BARRED | (_table_functions or _look_up_table_functions(cursor))


_table_functions: frozenset[str] = frozenset()


def _look_up_table_functions(cursor: Any) -> frozenset[str]:
    """Return the functions of the FROM clause that are not known to be harmless, as this DuckDB lists them."""
    global _table_functions  # noqa: PLW0603  (asked once in a process: one DuckDB, one answer)
    rows = cursor.execute(
        "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type IN ('table', 'table_macro')"
    ).fetchall()
    _table_functions = frozenset(name for (name,) in rows) - _HARMLESS
    return _table_functions


def _tree(cursor: Any, sql: str) -> Any:
    answer = json.loads(cursor.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()[0])
    return None if answer.get("error") else answer


def _named(node: Any) -> Iterator[tuple[str, Any]]:
    """Yield every name with its value in the tree, without recursion: a foreign text may nest deeply."""
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield from part.items()
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
