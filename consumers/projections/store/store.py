"""The DuckDB file of one log: opened by one process, written in transactions that carry rows and position together.

The owner must never open this file in any other way, not even to copy it: closing a second descriptor drops the lock
that keeps other processes out.
"""

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

from ..errors import DeclarationError, NoInitialState
from ..parts import Parts
from ..projection import Projection
from . import layout
from .commits import BadRows, write
from .doors import Doors
from .duckfile import connect, first_line, translated
from .generation import Folded, Generation, Status
from .identity import claim
from .reading import Readable
from .views import Excused, Views, replace_views, stored_views
from .width import Width

__all__ = ["Folded", "Generation", "Status", "Store"]

_log = logging.getLogger("morphogen.projections")
_OURS = f"{__name__.partition('.')[0]}."


class Store(Readable):
    """Owns the file. Open it with `Store.open`, close it with `close` or as a context manager."""

    def __init__(self, path: Path, epoch: str, projections: Sequence[Projection], config: dict[str, Any]) -> None:
        super().__init__(connect(path, config))
        self.path = path
        self.epoch = epoch
        self.projections = list(projections)
        self._excused = Excused()
        self._config = config
        self._writing = threading.Lock()
        self._doors = Doors()
        self._width = Width(config["threads"])

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
            self._width = Width(self._config["threads"])
            _log.warning("opened %s again", self.path)

    def holds(self, folded: "Folded") -> bool:
        """Tell whether a commit that ended in doubt is in the file after all."""
        with self._writing:
            try:
                rows = self._con.execute("SELECT id, seq FROM morphogen.positions").fetchall()
            except duckdb.Error:
                return False
        seqs = dict(rows)
        done = [one for one in folded.generations if one in self.generations and one not in folded.failed]
        if not done or any(seqs.get(one.id, 0) < folded.last for one in done):
            return False
        self._settle(folded)
        return True

    # Writing

    def commit(self, folded: Folded) -> None:
        """Write rows, states and positions in one transaction.

        A projection whose rows do not fit its tables is marked failed, and the others are written. Raises StoreFull
        where disk or memory has no room: nothing is written then, and the same commit may be tried again.
        """
        with self._writing:
            while True:
                try:
                    write(self._con, folded, self.generations, self._doors, self._width)
                    break
                except BadRows as error:
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
        with self._settles():
            for generation in folded.generations:
                if generation in folded.failed:
                    generation.error = folded.failed[generation]
                    _log.error("%s", generation.error)
                else:
                    generation.seq, generation.failed_before = folded.last, None
                    generation.state = folded.states.get(generation, generation.state)
            if any(one.projection.derives and one.live for one, _, _ in folded.rows):
                self._derive()

    def rebuild(self, names: Iterable[str] | None = None) -> list[Generation]:
        """Begin a new generation of these projections (all by default) beside the live ones, and return them.

        Whoever follows the log fills them from the beginning of the past and swaps them in.
        """
        known = {projection.name: projection for projection in self.projections}
        wanted = list(known) if names is None else list(dict.fromkeys(names))
        if unknown := [name for name in wanted if name not in known]:
            raise DeclarationError(f"no projection {unknown[0]!r}; there are {', '.join(sorted(known))}")
        begun = []
        with self._writing, self._transaction():
            for name in wanted:
                older = [one for one in self.generations if one.projection.name == name and not one.live]
                begun.append(self._begin(known[name], live=False))  # first, so that no number comes twice
                for one in older:
                    self._drop(one)
        self._tell()
        return begun

    def swap(self, generations: Sequence[Generation]) -> None:
        """Make finished generations the live ones: views replaced, older generations dropped, in one transaction.

        One that was dropped meanwhile stays so.
        """
        with self._settles():
            self._swap(generations)
            self._derive()

    def _swap(self, generations: Sequence[Generation]) -> None:
        with self._writing:
            generations = [one for one in generations if one in self.generations]
            names = {one.projection.name for one in generations}
            older = [one for one in self.generations if one.projection.name in names and one not in generations]
            after = [one for one in self.generations if one not in older]

            def take_over() -> None:
                for one in older:
                    self._discard(one)
                for new in generations:
                    self._con.execute("UPDATE morphogen.positions SET live = true WHERE id = ?", [new.id])
                self._replace_views(after, generations)

            self._leniently(take_over)
            for new in generations:  # only now: who sees that one is live may ask its tables at once
                new.live = True
            self.generations = after
            with contextlib.suppress(duckdb.Error):
                self._con.execute("CHECKPOINT")  # gives the dropped tables' room back; a reader may put it off

    # Opening

    def _prepare(self) -> None:
        try:
            with self._transaction():
                claim(self._con, self.path, self.epoch)
                self._con.execute(layout.PARTS)
                self._reconcile(self.projections)
                if any(projection.derives for projection in self.projections):
                    own = self.projections
                    self._reconcile(self._called_for())
                    self._fit_to_those_live(own)
            self._leniently(self._replace_views)
        except duckdb.Error as error:
            raise translated(error, self.path) from error

    def _reconcile(self, projections: Sequence[Projection]) -> None:
        rows = self._con.execute(
            "SELECT id, projection, signature, generation, seq, state, live, error FROM morphogen.positions "
            "ORDER BY generation"
        ).fetchall()
        fresh = not rows
        for projection in projections:
            live: Generation | None = None
            building: Generation | None = None
            for key, name, signature, number, seq, state, is_live, error in rows:
                if name != projection.name:
                    continue
                one = Generation(key, projection, signature, number, seq, is_live, failed_before=error)
                same = signature == projection.signature
                self._restore(one, state)
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
                self._begin(projection, live=fresh or not projection.tables)
            elif live is not None and live.outdated and building is None:
                self._begin(projection, live=False)

    def _restore(self, one: Generation, stored: bytes | None) -> None:
        """Give a generation its state as it was committed last."""
        _initiate(one)
        if isinstance(one.state, Parts):
            rows = self._con.execute("SELECT key, state FROM morphogen.parts WHERE id = ?", [one.id]).fetchall()
            one.state = Parts(dict(rows))
        elif stored is not None:
            one.state = msgspec.msgpack.decode(stored)

    # Projections that the log calls for

    def _called_for(self) -> list[Projection]:
        """Return the projections that rows of live ones call for."""
        found: list[Projection] = []
        live = {one.projection.name for one in self.generations if one.live}
        for one in self.generations:
            if one.live and not one.outdated and one.projection.derives:

                def read(table: str, schema: str = one.schema) -> list[tuple[Any, ...]]:
                    rows: list[tuple[Any, ...]] = self._con.execute(
                        f"SELECT * FROM {schema}.{table} ORDER BY seq, idx"
                    ).fetchall()
                    return rows

                found += one.projection.derive(read, live)
        return found

    def _derive(self) -> None:
        """Take up what the log calls for, and let go of what it calls for no more; a fault there is no end of the rest."""
        if not any(one.projection.derives for one in self.generations):
            return
        with self._writing:
            found = self._called_for()
            if [(one.signature, one.views) for one in found] == [(one.signature, one.views) for one in self._derived]:
                return
            kept, own = self._derived, [one for one in self.projections if one not in self._derived]
            marks = [(one, one.projection, one.hidden, one.outdated) for one in self.generations]
            try:
                self._derived, self.projections = found, own + found
                gone = {one.name for one in kept} - {one.name for one in found}
                self._leniently(lambda: self._take_up(own, found, gone))
            except (DeclarationError, duckdb.Error) as error:
                self._derived, self.projections = kept, own + kept
                for one, projection, hidden, outdated in marks:
                    one.projection, one.hidden, one.outdated = projection, hidden, outdated
                _log.error("what the log calls for cannot be made: %s", first_line(error))

    def _take_up(self, own: list[Projection], found: Sequence[Projection], gone: set[str]) -> None:
        self._fit(found, gone)
        self._fit_to_those_live(own)
        self._replace_views()

    def _fit_to_those_live(self, own: list[Projection]) -> None:
        """Call for them again once it is known which are live: what lists them depends on that."""
        self._derived = self._called_for()
        self._fit(self._derived, set())
        self.projections = own + self._derived

    def _fit(self, wanted: Sequence[Projection], gone: set[str]) -> None:
        """Begin, go on with, or hide generations so that they are those of `wanted`."""
        for one in [one for one in self.generations if one.projection.name in gone]:
            one.hidden = True
            if not one.live:
                self._drop(one)
        for projection in wanted:
            known = [one for one in self.generations if one.projection.name == projection.name]
            if not known:
                self._reconcile([projection])
                continue
            signature = projection.signature
            fitting = [one for one in known if one.signature == signature]
            for one in known:
                one.hidden = False
                one.outdated = one not in fitting
                if one in fitting:
                    one.projection = projection
                elif not one.live:
                    self._drop(one)
            if not fitting:
                self._begin(projection, live=False)

    def _begin(self, projection: Projection, *, live: bool) -> Generation:
        row = self._con.execute(
            "SELECT coalesce(max(id), 0) + 1, coalesce(max(generation) FILTER (projection = ?), 0) + 1 "
            "FROM morphogen.positions",
            [projection.name],
        ).fetchone()
        assert row is not None
        seq = 0 if projection.tables else self.front()  # views alone have nothing to be built from
        one = Generation(row[0], projection, projection.signature, row[1], seq, live)
        _initiate(one)
        try:
            self._con.execute(f"DROP SCHEMA IF EXISTS {one.schema} CASCADE")
            self._con.execute(layout.create_generation(projection, one.number))
        except (duckdb.ParserException, duckdb.CatalogException, duckdb.BinderException) as error:
            raise DeclarationError(f"projection {projection.name!r}: {first_line(error)}") from error
        self._con.execute(
            "INSERT INTO morphogen.positions VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?, ?)",
            [
                one.id,
                projection.name,
                projection.version,
                one.signature,
                one.number,
                self.epoch,
                seq,
                live,
                one.error,
            ],
        )
        self.generations.append(one)
        return one

    def _drop(self, one: Generation) -> None:
        self._discard(one)
        if one in self.generations:
            self.generations.remove(one)

    def _discard(self, one: Generation) -> None:
        """Take a generation out of the file."""
        self._con.execute(f"DROP SCHEMA IF EXISTS {one.schema} CASCADE")
        self._con.execute("DELETE FROM morphogen.positions WHERE id = ?", [one.id])
        self._con.execute("DELETE FROM morphogen.parts WHERE id = ?", [one.id])

    def _replace_views(self, every: list[Generation] | None = None, swapped: Sequence[Generation] = ()) -> None:
        """Make the public views those of the live generations; an outdated one keeps the views it had.

        `every` are the generations, where they are about to change, `swapped` those of them that are about to be live.
        """
        every = self.generations if every is None else every
        live = [one for one in every if (one.live or one in swapped) and not one.hidden]
        outdated = {one.projection.name for one in live if one.outdated}
        wanted: Views = {name: view for name, view in stored_views(self._con).items() if view[0] in outdated}
        current = [one for one in live if not one.outdated]
        for one in current:
            views = layout.table_views(one.projection, one.number)
            wanted.update({name: (one.projection.name, sql) for name, sql in views.items()})
        for one in current:
            wanted.update({name: (one.projection.name, _tidy(sql)) for name, sql in one.projection.views.items()})
        built = {one.projection.name for one in live if not one.outdated}
        replace_views(self._con, wanted, {one.projection.name for one in every} - built, self._excused)

    def _leniently(self, work: Callable[[], None]) -> None:
        """Do work that replaces views in a transaction; again, without those of packages and knowledge, where they fail."""
        try:
            with self._transaction():
                work()
        except DeclarationError:
            packages = {one.name for one in self.projections if not type(one).__module__.startswith(_OURS)}
            excused = Excused(frozenset(packages), frozenset(one.name for one in self._derived))
            if self._excused == excused:
                raise
            self._excused = excused
            with self._transaction():
                work()

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


def _initiate(one: Generation) -> None:
    """Give a generation its initial state; one whose code cannot make it is marked failed, and stops nobody else."""
    try:
        one.state = one.projection.initial()
    except (Exception, SystemExit) as error:  # noqa: BLE001  foreign code, as a fold is
        one.error = str(NoInitialState(one.projection.name, error))
        _log.error("%s", one.error)


def _tidy(sql: str) -> str:
    return inspect.cleandoc(sql).strip()
