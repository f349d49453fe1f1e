"""Run a foreign query: one statement, read-only in fact, bounded in time and memory, stoppable from outside.

    with Query(store.cursor(), "SELECT count(*) FROM metrics", limits=Limits(seconds=5)) as query:
        for batch in query.batches(): ...

Four fences stand one behind the other, each enough for most attacks: `statements.check` lets through single reading
statements that call no function which reads files, memory or settings; `BEGIN TRANSACTION READ ONLY` stops every
write that hides in a SELECT; `harden` shuts the database off from files, network and extensions and locks its
settings; and `MemoryFence` turns an allocation that DuckDB does not count into an error of that query alone.
"""

import contextlib
import re
import resource
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from .errors import SqlCancelled, SqlError, SqlRefused, SqlTooLarge, SqlTooLong
from .exported import exported_type, projection_of
from .statements import check

BATCH_ROWS = 16_384
MEMORY = 2 << 30
TEMPORARY = 4 << 30

Params = Sequence[Any] | Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one query: `seconds` from its start to its last row, `bytes` of the answer as Arrow.

    `memory` bounds what its sorts and hash tables may hold before they spill to disk. `rows` cuts the answer;
    None means all of them.
    """

    seconds: float = 30.0
    rows: int | None = None
    bytes: int = 1 << 30
    memory: int = 512 << 20


def harden(cursor: Any, *, temporary: Path | None = None, memory: int = MEMORY) -> None:
    """Shut a whole DuckDB instance off from the outside and lock its settings; it cannot be undone.

    Inserts from registered Arrow data go on working; ATTACH, COPY and the reading of files do not, for its owner
    neither. `temporary` takes what does not fit in `memory` bytes, which only ever lowers the limit that is set.
    Does nothing the second time.
    """
    locked, held = cursor.execute(
        "SELECT current_setting('lock_configuration'), current_setting('memory_limit')"
    ).fetchone()
    if locked:
        return
    memory = min(memory, _bytes_of(held) or memory)
    settings: dict[str, str] = {
        "python_enable_replacements": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
        "allow_persistent_secrets": "false",
        "memory_limit": f"'{memory}B'",
        "max_temp_directory_size": f"'{TEMPORARY}B'",
    }
    if temporary is not None:
        settings["temp_directory"] = "'" + str(temporary).replace("'", "''") + "'"
    settings |= {
        "enable_external_access": "false",
        "allowed_configs": "['max_execution_time', 'operator_memory_limit', 'threads']",  # the last is the owner's
        "lock_configuration": "true",
    }
    for name, value in settings.items():
        cursor.execute(f"SET GLOBAL {name} = {value}")


class MemoryFence:
    """Keeps any one allocation of this process below `slack` bytes while foreign queries run.

    Some functions build a value of gigabytes outside DuckDB's own count (`repeat('x', 2000000000)`, folded as a
    constant), where no limit and no interrupt reaches them. The limit of the process is set a little above what it
    holds and moved along by `renew`: the one great allocation fails, and with it its query, while small ones go on.
    A lower limit that was set before stays. Does nothing where the system does not tell what a process holds.
    """

    def __init__(self, slack: int = 512 << 20) -> None:
        self._slack = slack
        self._soft, self._hard = resource.getrlimit(resource.RLIMIT_DATA)
        self._up = False

    def renew(self) -> int:
        """Set the limit anew and return the bytes that the process holds, 0 where that is not known."""
        held = data_size()
        if not held:
            return 0
        wanted = held + self._slack
        if self._soft != resource.RLIM_INFINITY:
            wanted = min(wanted, self._soft)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, self._hard))
        self._up = True
        return held

    def lift(self) -> None:
        """Set the limit back to what it was."""
        if self._up:
            resource.setrlimit(resource.RLIMIT_DATA, (self._soft, self._hard))
            self._up = False


class Query:
    """One foreign query on a cursor of its own, which it closes. Use it in one thread; `stop` works from any.

    `timeout` is the limit that the asker knows, where some of it was spent waiting. DuckDB ends the query in time;
    whoever runs it also calls `stop` then, for the loops that DuckDB does not watch. `limited` says that the cursor
    has these limits set. Once closed, `reusable` tells whether the query left the cursor as it found it, and open.
    """

    def __init__(
        self,
        cursor: Any,
        sql: str,
        *,
        params: Params = None,
        as_of: int | None = None,
        limits: Limits | None = None,
        timeout: float | None = None,
        limited: bool = False,
    ) -> None:
        self.types: list[str] = []
        self.rows = 0
        self.truncated = False
        self._limits = limits or Limits()
        self._cursor = cursor
        self._sql = sql
        self._params = params
        self._as_of = as_of
        self._timeout = self._limits.seconds if timeout is None else timeout
        self.reusable = False
        self._limited = limited
        self._reader: Any = None
        self._stopped: SqlError | None = None
        self._closed = False
        self._guard = threading.Lock()

    def __enter__(self) -> "Query":
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close(keep=kind is None)

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the answer."""
        return self._reader.schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the answer as it is made, cut at the limit of rows. Raises SqlError and what stands below it."""
        size, most = 0, self._limits.rows
        with self._told():
            for batch in self._reader:
                if self._stopped is not None:
                    raise self._stopped
                if most is not None and self.rows + batch.num_rows > most:
                    self.truncated = True
                    batch = batch.slice(0, most - self.rows)  # noqa: PLW2901  (cut to what is left)
                size += batch.nbytes
                if size > self._limits.bytes:
                    raise SqlTooLarge(
                        f"the answer is larger than {shown_size(self._limits.bytes)}: aggregate, add LIMIT, or take a "
                        "snapshot and read that"
                    )
                self.rows += batch.num_rows
                if batch.num_rows:
                    yield batch
                if self.truncated:
                    return

    def stop(self, reason: SqlError | None = None) -> None:
        """Interrupt it, wherever it is; its own thread then raises `reason`."""
        with self._guard:
            if self._stopped is None:
                self._stopped = reason or SqlCancelled("the query was cancelled")
            if not self._closed:
                self._cursor.interrupt()

    def close(self, *, keep: bool = False) -> None:
        """End the transaction and close the cursor, and with it whatever the query left there.

        With `keep`, a cursor on which nothing went wrong and nothing was left stays open for the next query.
        """
        with self._guard:
            if self._closed:
                return
            self._closed = True
        self._reader = None
        with contextlib.suppress(Exception):
            self._cursor.execute("ROLLBACK")
            if keep and self._stopped is None and self._as_of is None:
                self.reusable = True
                return
        with contextlib.suppress(Exception):
            self._cursor.close()

    def _open(self) -> None:
        limits, cursor = self._limits, self._cursor
        with self._told():
            check(cursor, self._sql)
            cut = f"; SET VARIABLE as_of = {int(self._as_of)}" if self._as_of is not None else ""
            # All in one transaction: each new one would wait for the commit that the projector is about to make.
            bounds = (
                f"; SET max_execution_time = {max(1, int(limits.seconds * 1000))}; "
                f"SET operator_memory_limit = '{limits.memory}B'"
            )
            cursor.execute(f"BEGIN TRANSACTION READ ONLY{'' if self._limited else bounds}{cut}")
            if self._stopped is not None:
                raise self._stopped
            relation = self._bound()
            if relation is None:
                raise SqlRefused("refused: this statement has no rows to answer with; write a SELECT")
            kinds = relation.types
            self.types = [str(kind) for kind in kinds]
            if any(exported_type(kind) for kind in kinds):
                relation = relation.project(projection_of(relation))
            self._reader = relation.to_arrow_reader(BATCH_ROWS)

    def _bound(self) -> Any:
        cursor, params = self._cursor, self._params
        try:
            return cursor.sql(self._sql, params=params) if params else cursor.sql(self._sql)
        except (duckdb.ParserException, duckdb.CatalogException, duckdb.BinderException):
            # A relation's error does not say where in the text it is; the same text executed does.
            cursor.execute("ROLLBACK; BEGIN TRANSACTION READ ONLY")
            cursor.execute(self._sql, params) if params else cursor.execute(self._sql)
            raise

    def too_long(self) -> SqlTooLong:
        """Return the error of a query that met its time limit."""
        return SqlTooLong(
            f"stopped after {self._timeout:g} s, the time limit: narrow the query, or allow more with a timeout"
        )

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what DuckDB and pyarrow raise into one line for the one who asked."""
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError, RuntimeError, MemoryError, ValueError, TypeError) as error:
            raise self._told_as(error) from None

    def _told_as(self, error: Exception) -> SqlError:
        text = str(error)
        if isinstance(error, duckdb.InterruptException) or "INTERRUPT Error" in text:
            return self._stopped or self.too_long()
        if isinstance(error, MemoryError | duckdb.OutOfMemoryException) or "Out of Memory Error" in text:
            return SqlTooLarge(
                "the query needs more memory than it may have: aggregate or filter earlier, or select fewer columns"
            )
        if "read-only mode" in text:
            return SqlRefused("refused: a query only reads, and this one tries to write")
        if "file system operations are disabled" in text or "disabled by configuration" in text:
            return SqlRefused("refused: a query reads the tables of the store, no files and no network")
        return sql_error(text)


def sql_error(text: str) -> SqlError:
    """Return DuckDB's message as one line, with the lines that point into the text kept apart."""
    head, mark, tail = text.partition("\nLINE ")
    line = " ".join(head.split())
    line = re.sub(r"^(?:OSError|Invalid Error): ", "", line)
    return SqlError(line[:600] or "the query failed", (f"LINE {tail}".rstrip() if mark else "")[:2000])


def shown_size(count: int) -> str:
    """Return a number of bytes for the eye."""
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB".replace(".0 ", " ")


def _bytes_of(text: str) -> int | None:
    """Return the bytes that DuckDB's `1.8 GiB` means, or None for what it would not write."""
    match = re.fullmatch(r"([\d.]+) (bytes|KiB|MiB|GiB|TiB)", text)
    if match is None:
        return None
    return int(float(match[1]) * 1024 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(match[2]))


def data_size() -> int:
    """Return the bytes of private memory that this process has mapped, or 0 where the system does not tell."""
    try:
        pages = Path("/proc/self/statm").read_bytes().split()[5]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()
