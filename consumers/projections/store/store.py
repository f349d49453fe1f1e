"""The DuckDB file of one log: opened by one process, written in transactions that carry rows and position together.

The owner must never open this file in any other way, not even to copy it: closing a second descriptor drops the lock
that keeps other processes out.
"""

import asyncio
import contextlib
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from ..errors import DeclarationError, StoreDamaged
from ..fold.batch import Lane
from ..projection import Projection
from . import layout
from .doors import Doors
from .duckfile import MEND, connect, first_line, translated
from .generation import Folded, Generation, Status
from .hashes import Bucket, bucket_hashes, content_hash
from .views import Views, replace_views, stored_views

__all__ = ["Folded", "Generation", "Status", "Store"]

_log = logging.getLogger("morphogen.projections")
_WRONG_ROWS = (
    duckdb.ConversionException, duckdb.InvalidInputException, duckdb.BinderException, duckdb.OutOfRangeException,
)  # fmt: skip


class _BadRowsError(Exception):
    """Rows of one projection do not fit its table."""

    def __init__(self, generation: "Generation", reason: str) -> None:
        self.generation = generation
        self.reason = reason
        super().__init__(reason)


class Store:
    """Owns the file. Open it with `Store.open`, close it with `close` or as a context manager."""

    def __init__(self, path: Path, epoch: str, projections: Sequence[Projection], config: dict[str, Any]) -> None:
        self.path = path
        self.epoch = epoch
        self.projections = list(projections)
        self.head = 0
        """Last sequence known to be in the log; kept up to date by whoever follows it."""
        self.generations: list[Generation] = []
        self._config = config
        self._changed = threading.Condition()
        self._listeners: list[Callable[[], None]] = []
        self._writing = threading.Lock()
        self._con: duckdb.DuckDBPyConnection = connect(path, config)
        self._doors = Doors()

    @classmethod
    def open(
        cls,
        path: Path | str,
        projections: Sequence[Projection] | None = None,
        *,
        epoch: str,
        memory_limit: str | None = None,
        threads: int | None = None,
    ) -> "Store":
        """Open or make the store of the log `epoch` with these projections (all that can be discovered by default).

        Raises StoreLocked where another process owns it, StoreDamaged where it is no store, or not of this log.
        """
        if projections is None:
            from ..registry import discover

            projections = discover()
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        config: dict[str, Any] = {
            "threads": threads or max(2, min(8, os.cpu_count() or 2)),
            "checkpoint_threshold": "128MB",
            "preserve_insertion_order": True,
        }
        if memory_limit is not None:
            config["memory_limit"] = memory_limit
        store = cls(path, epoch, projections, config)
        try:
            store._prepare()
        except BaseException:
            store.close()
            raise
        return store

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a commit that is under way ends first."""
        with self._writing, contextlib.suppress(duckdb.ResourceInUseException):
            self._con.close()  # refused while a reader is in the middle of a call; the process then ends with it open

    def reopen_if_broken(self) -> None:
        """Open the file again where DuckDB gave it up (a full disk can do that); cursors taken before are void then."""
        with self._writing:
            try:
                self._con.execute("SELECT 1")
                return
            except duckdb.Error:
                self._con.close()
            self._con = connect(self.path, self._config)
            self._doors = Doors()
            _log.warning("opened %s again", self.path)

    def holds(self, folded: "Folded") -> bool:
        """Tell whether a commit that ended in doubt is in the file after all."""
        with self._writing:
            try:
                rows = self._con.execute("SELECT id, seq FROM morphogen.positions").fetchall()
            except duckdb.Error:
                return False
        seqs = dict(rows)
        done = [one for one in folded.generations if one not in folded.failed]
        if not done or any(seqs.get(one.id, 0) < folded.last for one in done):
            return False
        self._settle(folded)
        return True

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection of its own for reading (another thread may use it while commits go on)."""
        return self._con.cursor()

    # Positions

    @property
    def live(self) -> list[Generation]:
        """Generations that answer queries and go on with the log."""
        return [one for one in self.generations if one.live and not one.outdated]

    @property
    def behind(self) -> list[Generation]:
        """Generations that must first be brought up to the live position: new, rebuilt, or stopped by an error."""
        front = self.front()
        return [
            one
            for one in self.generations
            if not one.outdated and one.error is None and (not one.live or one.seq < front)
        ]

    def front(self) -> int:
        """Return the position of the live projections that go on with the log."""
        return max((one.seq for one in self.live if one.error is None), default=0)

    def position(self) -> int:
        """Return the last sequence that every table shows.

        A new projection has no table before it is built, and one whose code failed is left out; `status` tells both.
        """
        return min((one.seq for one in self.generations if one.live and one.error is None), default=0)

    def status(self) -> list[Status]:
        """Return how each generation stands."""
        return [
            Status(one.projection.name, one.projection.version, one.number, one.seq, one.live, one.error)
            for one in self.generations
        ]

    def wait(self, seq: int, timeout: float | None = None) -> bool:
        """Block until the position reaches `seq`; return whether it did within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.position() >= seq, timeout)

    async def reached(self, seq: int, timeout: float | None = None) -> bool:
        """Wait like `wait`, without blocking the event loop."""
        loop, event = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(event.set)

        stop = self.listen(wake)
        try:
            async with asyncio.timeout(timeout):
                while self.position() < seq:
                    await event.wait()
                    event.clear()
        except TimeoutError:
            return self.position() >= seq
        finally:
            stop()
        return True

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back after every change of a position, from the thread that made it; return how to stop that."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback) if callback in self._listeners else None

    def lanes(self, upto: int) -> dict[Lane, int]:
        """Return the last counter folded in each lane, as of a position."""
        found = [one for one in self.generations if one.projection.name == "frames" and one.seq >= upto]
        if not found or upto == 0:
            return {}
        rows = self._con.execute(
            f"SELECT run, family, writer, max(last) FROM {found[0].schema}._frames WHERE seq <= ? GROUP BY ALL", [upto]
        ).fetchall()
        return {(run, family, writer): last for run, family, writer, last in rows}

    def seq_at(self, time_ns: int) -> int:
        """Return the last sequence that the broker had stored by a time (unix ns), 0 where there was none."""
        row = (
            self.cursor()
            .execute("SELECT coalesce(max(seq), 0) FROM frames WHERE stored <= make_timestamp_ns(?)", [time_ns])
            .fetchone()
        )
        return int(row[0]) if row else 0

    # Writing

    def commit(self, folded: Folded) -> None:
        """Write rows, states and positions in one transaction.

        A projection whose rows do not fit its tables is marked failed, and the others are written. Raises StoreFull
        where the disk has no room: nothing is written then, and the same commit may be tried again.
        """
        with self._writing:
            while True:
                try:
                    self._write(folded)
                    break
                except _BadRowsError as error:
                    folded.failed[error.generation] = error.reason
                except duckdb.Error as error:
                    raise translated(error, self.path) from error
        self._settle(folded)

    def advance(self, generations: Sequence[Generation], upto: int) -> None:
        """Move positions over sequences that the log no longer holds."""
        lagging = [one for one in generations if one.error is None and one.seq < upto]
        if lagging:
            self.commit(Folded(lagging[0].seq + 1, upto, [], lagging))

    def _settle(self, folded: Folded) -> None:
        for generation in folded.generations:
            if generation in folded.failed:
                generation.error = folded.failed[generation]
                _log.error("%s", generation.error)
            else:
                generation.seq = folded.last
                generation.state = folded.states.get(generation, generation.state)
        self._tell()

    def _write(self, folded: Folded) -> None:
        con = self._con
        con.begin()
        try:
            for generation, table, rows in folded.rows:
                if generation in folded.failed:
                    continue
                try:
                    self._doors.insert(con, generation, table, rows)
                except _WRONG_ROWS as error:
                    reason = f"projection {generation.projection.name!r}, table {table!r}: {first_line(error)}"
                    raise _BadRowsError(generation, reason) from error
            self._move(folded)
            con.commit()
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                con.rollback()
            raise

    def _move(self, folded: Folded) -> None:
        moved = [one for one in folded.generations if one not in folded.failed]
        if stateless := [str(one.id) for one in moved if one not in folded.states]:
            self._con.execute(
                f"UPDATE morphogen.positions SET seq = {int(folded.last)} WHERE id IN ({', '.join(stateless)})"
            )
        for one, state in folded.states.items():
            if one not in folded.failed:
                self._con.execute(
                    "UPDATE morphogen.positions SET seq = ?, state = ? WHERE id = ?",
                    [folded.last, msgspec.msgpack.encode(state), one.id],
                )
        for one, reason in folded.failed.items():
            self._con.execute("UPDATE morphogen.positions SET error = ? WHERE id = ?", [reason, one.id])

    def rebuild(self, names: Iterable[str] | None = None) -> list[Generation]:
        """Begin a new generation of these projections (all by default) beside the live ones, and return them.

        Whoever follows the log fills them from the beginning of the past and swaps them in.
        """
        known = {projection.name: projection for projection in self.projections}
        wanted = list(known) if names is None else list(names)
        if unknown := [name for name in wanted if name not in known]:
            raise DeclarationError(f"no projection {unknown[0]!r}; there are {', '.join(sorted(known))}")
        begun = []
        with self._writing, self._transaction():
            for name in wanted:
                for one in [one for one in self.generations if one.projection.name == name and not one.live]:
                    self._drop(one)
                begun.append(self._begin(known[name], live=False))
        self._tell()
        return begun

    def swap(self, generations: Sequence[Generation]) -> None:
        """Make finished generations the live ones: views replaced, older generations dropped, in one transaction."""
        with self._writing:
            with self._transaction():
                for new in generations:
                    name = new.projection.name
                    for old in [one for one in self.generations if one.projection.name == name and one is not new]:
                        self._drop(old)
                    new.live = True
                    self._con.execute(
                        "UPDATE morphogen.positions SET live = true WHERE id = ?",
                        [new.id],
                    )
                self._replace_views()
            with contextlib.suppress(duckdb.Error):
                self._con.execute("CHECKPOINT")  # gives the dropped tables' room back; a reader may put it off
        self._tell()

    # Reading

    def tables(self) -> list[str]:
        """Return the names of all tables of live generations, hidden ones too."""
        return [table for one in self.generations if one.live for table in one.projection.tables]

    def views(self) -> list[str]:
        """Return the names of everything that people may read."""
        rows = (
            self.cursor()
            .execute(
                "SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal "
                "AND NOT starts_with(view_name, '_') ORDER BY view_name"
            )
            .fetchall()
        )
        return [row[0] for row in rows]

    def content_hash(self, table: str, upto: int | None = None) -> tuple[int, str]:
        """Return the rows of a table or view, and a hash over them; as it stood at `upto` where that is given."""
        with self.reading(upto) as con:
            return content_hash(con, table)

    def bucket_hashes(self, table: str, *, bucket: int = 4096, after: int = 0, upto: int | None = None) -> list[Bucket]:
        """Return a hash for each range of `bucket` sequences in a table that has a column `seq`."""
        with self.reading(upto) as con:
            return bucket_hashes(con, table, bucket=bucket, after=after)

    @contextlib.contextmanager
    def reading(self, as_of: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a cursor on which all public tables stand as they did at position `as_of`."""
        con = self.cursor()
        try:
            if as_of is not None:
                con.execute(f"SET VARIABLE as_of = {int(as_of)}")
            yield con
        finally:
            con.close()

    # Opening

    def _prepare(self) -> None:
        try:
            made = self._con.execute(
                "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'morphogen' AND table_name = 'store'"
            ).fetchone()
            others = self._con.execute("SELECT count(*) FROM duckdb_tables()").fetchone()
            assert made is not None
            assert others is not None
            if made[0] == 0 and others[0]:
                raise StoreDamaged(f"{self.path} is a DuckDB file, but no store of Morphogen: move it away")
            with self._transaction():
                if made[0] == 0:
                    self._con.execute(layout.META)
                    self._con.execute("INSERT INTO morphogen.store VALUES (?, ?)", [layout.FORMAT, self.epoch])
                self._check_identity()
                self._reconcile()
                self._replace_views()
        except duckdb.Error as error:
            raise translated(error, self.path) from error

    def _check_identity(self) -> None:
        row = self._con.execute("SELECT format, epoch FROM morphogen.store").fetchone()
        if row is None:
            raise StoreDamaged(f"{self.path} does not say which log it belongs to: {MEND}")
        if row[0] != layout.FORMAT:
            raise StoreDamaged(f"{self.path} has store format {row[0]}, this version writes {layout.FORMAT}: {MEND}")
        if row[1] != self.epoch:
            raise StoreDamaged(f"{self.path} was made from log {row[1]}, not from {self.epoch}: {MEND}")

    def _reconcile(self) -> None:
        rows = self._con.execute(
            "SELECT id, projection, signature, generation, seq, state, live FROM morphogen.positions "
            "ORDER BY generation"
        ).fetchall()
        fresh = not rows
        for projection in self.projections:
            live: Generation | None = None
            building: Generation | None = None
            for key, name, signature, number, seq, state, is_live in rows:
                if name != projection.name:
                    continue
                one = Generation(key, projection, number, seq, is_live)
                same = signature == projection.signature
                one.state = projection.initial() if state is None else msgspec.msgpack.decode(state)
                one.outdated = not same
                if is_live:
                    live = one
                    self.generations.append(one)
                elif same:
                    building = one
                    self.generations.append(one)
                else:
                    self._drop(one)
            if live is None and building is None:
                self._begin(projection, live=fresh)
            elif live is not None and live.outdated and building is None:
                self._begin(projection, live=False)
        self._con.execute("UPDATE morphogen.positions SET error = NULL")

    def _begin(self, projection: Projection, *, live: bool) -> Generation:
        row = self._con.execute(
            "SELECT coalesce(max(id), 0) + 1, coalesce(max(generation) FILTER (projection = ?), 0) + 1 "
            "FROM morphogen.positions",
            [projection.name],
        ).fetchone()
        assert row is not None
        one = Generation(row[0], projection, row[1], 0, live, projection.initial())
        try:
            self._con.execute(f"DROP SCHEMA IF EXISTS {one.schema} CASCADE")
            self._con.execute(layout.create_generation(projection, one.number))
        except (duckdb.ParserException, duckdb.CatalogException, duckdb.BinderException) as error:
            raise DeclarationError(f"projection {projection.name!r}: {first_line(error)}") from error
        self._con.execute(
            "INSERT INTO morphogen.positions VALUES (?, ?, ?, ?, ?, ?, 0, NULL, ?, NULL)",
            [one.id, projection.name, projection.version, projection.signature, one.number, self.epoch, live],
        )
        self.generations.append(one)
        return one

    def _drop(self, one: Generation) -> None:
        self._con.execute(f"DROP SCHEMA IF EXISTS {one.schema} CASCADE")
        self._con.execute("DELETE FROM morphogen.positions WHERE id = ?", [one.id])
        if one in self.generations:
            self.generations.remove(one)

    def _replace_views(self) -> None:
        """Make the public views those of the live generations; an outdated one keeps the views it had."""
        live = [one for one in self.generations if one.live]
        outdated = {one.projection.name for one in live if one.outdated}
        wanted: Views = {name: view for name, view in stored_views(self._con).items() if view[0] in outdated}
        current = [one for one in live if not one.outdated]
        for one in current:
            views = layout.table_views(one.projection, one.number)
            wanted.update({name: (one.projection.name, sql) for name, sql in views.items()})
        for one in current:
            wanted.update({name: (one.projection.name, _tidy(sql)) for name, sql in one.projection.views.items()})
        built = {one.projection.name for one in live if not one.outdated}
        replace_views(self._con, wanted, {one.projection.name for one in self.generations} - built)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        kept = list(self.generations)
        self._con.begin()
        try:
            yield
            self._con.commit()
        except BaseException:
            self.generations = kept
            with contextlib.suppress(duckdb.Error):
                self._con.rollback()
            raise

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
        for callback in list(self._listeners):
            callback()


def _tidy(sql: str) -> str:
    return inspect.cleandoc(sql).strip()
