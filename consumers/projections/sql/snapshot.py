"""Copies of all tables as they stand at one position, for tools that know nothing of Morphogen.

A DuckDB file with plain tables (in a storage format that DuckDB 1.x reads too) or a folder with one Parquet file a
table. The name carries the position; a snapshot appears whole and verified, by one rename, or not at all. The store's
own file is not touched: rows are read in one read-only transaction and written by a second, unrelated DuckDB.
"""

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
from pyarrow import parquet

from .errors import SnapshotFailed
from .exported import exported_type, projection_of, quoted
from .intervals import without_intervals

if TYPE_CHECKING:
    from ..store.store import Store

FORMATS = ("duckdb", "parquet")
BATCH_ROWS = 122_880  # one row group of DuckDB
ABOUT = "morphogen_snapshot"
_SLASHES = ("/", os.sep)
_OLDEST_READER = "v1.0.0"
# Otherwise DuckDB fetches what reads a file of another kind, such as SQLite's.
_ALONE: dict[str, Any] = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
_FULL = re.compile(r"no space left|disk full|file too large|quota exceeded", re.IGNORECASE)

Copy = Callable[[str, Any], int]


def write_snapshot(store: "Store", target: Path | str, form: str = "duckdb") -> Path:
    """Write a snapshot at or below `target` and return its path, `<name>-<position>.duckdb` or `<name>-<position>/`.

    `target` is a folder (one that ends in a slash is made where it is not there), or a path whose last part (without
    `.duckdb`) is the name to use. An earlier snapshot of this log of the same name and position is replaced, and nothing
    else. Raises SnapshotFailed, in one line, and leaves nothing behind.
    """
    if form not in FORMATS:
        raise SnapshotFailed(f"no snapshot format {form!r}: choose {' or '.join(FORMATS)}")
    below = str(target).endswith(_SLASHES)
    target = Path(target).expanduser().absolute()
    if target.resolve() == store.path.resolve():
        raise SnapshotFailed(f"{target} is the store itself: choose another place for a snapshot")
    cursor = store.cursor()
    part: Path | None = None
    try:
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        position = _position(cursor, [one.projection.name for one in store.shown()])
        cursor.execute(f"SET VARIABLE as_of = {position}")
        final = _named(target, position, form, below=below)
        _replaceable(final, form, store.epoch)
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_name(f".{final.name}.{secrets.token_hex(4)}.part")
        counts = _write(cursor, part, form, position, store.epoch)
        _verify(part, form, counts)
        _move(part, final)
    except (OSError, duckdb.Error, pa.ArrowException, RuntimeError) as error:
        raise SnapshotFailed(_reason(error, target)) from error
    finally:
        with contextlib.suppress(duckdb.Error):
            cursor.close()
        if part is not None:
            _remove(part)
    return final


def _position(cursor: Any, shown: list[str]) -> int:
    """Return the last sequence that all of these projections hold, as of the open transaction.

    The file keeps others too, which stand still: dropped knowledge, and what packages brought that are gone.
    """
    row = cursor.execute(
        "SELECT min(seq) FROM morphogen.positions WHERE live AND error IS NULL AND list_contains(?, projection)",
        [shown],
    ).fetchone()
    return int(row[0] or 0)


def _named(target: Path, position: int, form: str, *, below: bool) -> Path:
    suffix = ".duckdb" if form == "duckdb" else ""
    if below or target.is_dir():
        return target / f"morphogen-{position}{suffix}"
    name = target.name.removesuffix(".duckdb").removesuffix(".parquet")
    return target.with_name(f"{name}-{position}{suffix}")


def _write(cursor: Any, part: Path, form: str, position: int, epoch: str) -> dict[str, int]:
    names = [
        row[0]
        for row in cursor.execute(
            "SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal "
            "AND NOT starts_with(view_name, '_') ORDER BY view_name"
        ).fetchall()
    ]
    about = cursor.sql(
        f"SELECT {position}::BIGINT AS position, '{epoch}' AS epoch, make_timestamp_ns({time.time_ns()}) AS written"
    )
    if form == "parquet":
        part.mkdir()
        return _each(cursor, names, about, lambda name, relation: _to_parquet(part / f"{name}.parquet", relation))
    config = {"storage_compatibility_version": _OLDEST_READER, "memory_limit": "1GB", "threads": "2"}
    with duckdb.connect(str(part), config=config) as out:
        return _each(cursor, names, about, lambda name, relation: _to_table(out, name, relation))


def _each(cursor: Any, names: list[str], about: Any, copy: Copy) -> dict[str, int]:
    counts = {}
    for name in names:
        try:
            counts[name] = copy(name, cursor.sql(f"SELECT * FROM {quoted(name)}"))
        except (duckdb.Error, pa.ArrowException) as error:
            raise RuntimeError(f"table {name}: {error}") from error
    counts[ABOUT] = copy(ABOUT, about)
    return counts


def _to_table(out: Any, name: str, relation: Any) -> int:
    types = [_plain(kind) for kind in relation.types]
    columns = list(zip(relation.columns, types, strict=True))
    out.execute(f"CREATE TABLE {quoted(name)} ({', '.join(f'{quoted(column)} {kind}' for column, kind in columns)})")
    values = ", ".join(f"{quoted(column)}::{kind}" for column, kind in columns)
    count = 0
    for batch in _batches(relation):
        out.register("incoming", pa.Table.from_batches([batch]))
        out.execute(f"INSERT INTO {quoted(name)} SELECT {values} FROM incoming")
        out.unregister("incoming")
        count += batch.num_rows
    return count


def _to_parquet(path: Path, relation: Any) -> int:
    reader = _batches(relation)
    schema = without_intervals(reader.schema.empty_table()).schema  # Parquet's intervals end at milliseconds
    count = 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_table(without_intervals(pa.Table.from_batches([batch])))
            count += batch.num_rows
    _sync(path)
    return count


def _batches(relation: Any) -> Any:
    if any(exported_type(kind) for kind in relation.types):
        relation = relation.project(projection_of(relation))
    return relation.to_arrow_reader(BATCH_ROWS)


def _plain(kind: Any) -> str:
    """Return the type of a column in the copy: its own, but for those that older readers lack."""
    exported = exported_type(kind)
    keeps = exported == "VARCHAR" and kind.id in {"uhugeint", "bit", "time with time zone"}
    return str(kind) if exported is None or keeps else exported


def _verify(part: Path, form: str, counts: dict[str, int]) -> None:
    """Read the copy back and compare the number of rows of every table."""
    if form == "parquet":
        found = {name: parquet.read_metadata(part / f"{name}.parquet").num_rows for name in counts}
    else:
        with duckdb.connect(str(part), read_only=True) as copy:
            found = {name: copy.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()[0] for name in counts}
        _sync(part)
    for name, count in counts.items():
        if found[name] != count:
            raise OSError(f"table {name} has {found[name]} rows in the copy and {count} in the store")


def _replaceable(final: Path, form: str, epoch: str) -> None:
    """Raise SnapshotFailed where something is in the place that is no snapshot of this log."""
    if not os.path.lexists(final):
        return
    found: Any = None
    with contextlib.suppress(OSError, duckdb.Error, pa.ArrowException):
        if final.is_symlink():
            pass  # the store itself may be behind it, which nobody may open again
        elif form == "parquet":
            found = parquet.read_table(final / f"{ABOUT}.parquet", columns=["epoch"])["epoch"].to_pylist()
        elif final.is_file():  # anything else duckdb would open is no snapshot either
            with duckdb.connect(str(final), read_only=True, config=_ALONE) as copy:
                found = [value for (value,) in copy.execute(f"SELECT epoch FROM {ABOUT}").fetchall()]
    if found != [epoch]:
        raise SnapshotFailed(f"{final} is there, and is no snapshot of this log: choose another name, or move it away")


def _move(part: Path, final: Path) -> None:
    old: Path | None = None
    if final.is_dir():
        old = final.with_name(f".{final.name}.{secrets.token_hex(4)}.old")
        final.replace(old)
    part.replace(final)
    _sync(final.parent)
    if old is not None:
        _remove(old)


def _remove(path: Path) -> None:
    for one in (path, path.with_name(path.name + ".wal")):
        if one.is_dir():
            shutil.rmtree(one, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                one.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception, target: Path) -> str:
    text = " ".join(str(error).split())
    if _FULL.search(text):
        return f"no room for the snapshot at {target}: free some disk space, or choose another place"
    return f"the snapshot at {target} could not be written: {text[:300]}"
