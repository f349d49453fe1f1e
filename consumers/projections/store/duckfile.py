"""The DuckDB file itself: connecting to it, and what its errors mean."""

import os
import re
from pathlib import Path
from typing import Any

import duckdb

from ..errors import StoreDamaged, StoreError, StoreFull, StoreLocked

MEND = "run `morphogen rebuild` to keep it aside and make it anew from the log"
_FULL = ("no space left", "disk full", "file too large", "could not write", "failed to write", "quota exceeded")
_PID = re.compile(r"\(PID (\d+)\)")
_SPOILED = ("could not read enough bytes", "corrupt", "checksum", "not a valid duckdb")


def connect(path: Path, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    """Open the file as its one owner. Raises StoreLocked, StoreDamaged or StoreFull."""
    try:
        con = duckdb.connect(str(path), config=config)
        con.execute("SET GLOBAL TimeZone = 'UTC'")  # all our times are UTC, and so now() compares with them
        con.execute("SET enable_progress_bar = false")  # `python -c` counts as a prompt: it would go into its output
    except (duckdb.Error, UnicodeError) as error:
        raise translated(error, path, opening=True) from error
    return con


def holder(path: Path) -> int | None:
    """Return the pid of the process that has the file open; None where it is nobody's, or one elsewhere.

    Never call it in the process that owns it.
    """
    try:
        duckdb.connect(str(path), read_only=True).close()
    except (duckdb.Error, UnicodeError) as error:
        found = _PID.search(str(error))
        return int(found[1]) if found else None
    return None


def translated(error: Exception, path: Path, *, opening: bool = False) -> StoreError:
    """Return what a DuckDB error means for the store, in one line."""
    text = str(error).lower()
    if "conflicting lock" in text or "could not set lock" in text:
        holder = _PID.search(str(error))
        pid = f" (pid {holder[1]})" if holder else ""
        return StoreLocked(
            f"{path} is in use by another process{pid}: ask it through the SQL service, or stop it first"
        )
    if any(word in text for word in _FULL):
        return StoreFull(f"no room to write {path}: {first_line(error)}; free some disk space")
    if isinstance(error, duckdb.OutOfMemoryException):
        return StoreFull(f"no memory to write {path}: {first_line(error)}; queries that run beside it may hold it")
    if isinstance(error, duckdb.FatalException):
        return StoreFull(f"DuckDB gave {path} up: {first_line(error)}; it is opened again")
    if "permission denied" in text or "cannot open file" in text:
        return StoreError(f"cannot open {path}: {first_line(error)}")
    spoiled = any(word in text for word in _SPOILED) or isinstance(error, duckdb.SerializationException)
    if opening or spoiled or isinstance(error, duckdb.InternalException):
        return StoreDamaged(f"{path} cannot be read as a store ({first_line(error)}): {MEND}")
    return StoreError(f"{path}: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, cut to 300 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip()[:300]


def set_aside(path: Path) -> Path | None:
    """Rename a store's file and its write-ahead log to `<name>.damaged-<n>`; return the new name, None without a file.

    For a store that cannot be opened. Never call it for one that this process owns.
    """
    wal = path.with_name(path.name + ".wal")
    if not path.exists() and not wal.exists():
        return None
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    if wal.exists():
        os.replace(wal, aside.with_name(aside.name + ".wal"))
    if path.exists():
        os.replace(path, aside)
    return aside
