"""How a projection is declared: its tables, the events it folds, its version.

    class GradientAlarms(Projection, name="gradient_alarms", version=1, types=("health.layer",)):
        tables = {"gradient_alarms": "layer VARCHAR, grad_norm DOUBLE"}

        def rows(self, event):
            for layer, norm in zip(event.body.layers, event.body.grad_norm):
                if norm > 100:
                    yield layer, float(norm)

A projection is a pure fold from events to rows: no clock, no randomness, no I/O. Its tables only grow; the place
(seq, idx) and the envelope (run, attempt, rank, step, time) of the event stand in front of every row, so that any
table can be read as it stood at any position. What changes (the state of a run) is a view over them.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from .column_types import outside, spelled, split
from .errors import DeclarationError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .fold.batch import Batch, Entry
    from .fold.rows import Columns

FRONT = {
    "seq": "BIGINT",
    "idx": "INTEGER",
    "run": "VARCHAR",
    "attempt": "INTEGER",
    "rank": "INTEGER",
    "step": "BIGINT",
    "time": "TIMESTAMP_NS",
}
"""The columns that every table begins with: the place of the event, then its envelope."""


class Body(NamedTuple):
    """How a body is made of the rows that one event has in `table`.

    `gather` is an aggregate over those rows, `body` an expression (JSON or VARIANT) of its result, called `held`.
    """

    table: str
    gather: str
    body: str


Rows = Mapping[str, "Columns"]
"""What a fold returns: columns by table. A table that gets no rows may be left out."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,50}")
_TABLE = re.compile(r"_?[a-z][a-z0-9_]{0,50}")


class Projection:
    """Base of all projections; the class keywords are `name`, `version` and `types`.

    `types` names the event types to fold; `("*",)` means every event. Bump `version` when the meaning of the rows
    changes: the projection is then rebuilt beside the live one and swapped in.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    types: ClassVar[tuple[str, ...]] = ()

    tables: Mapping[str, str] = MappingProxyType({})
    """Columns of each table as in CREATE TABLE, without the front ones. A leading underscore hides a table."""
    views: Mapping[str, str] = MappingProxyType({})
    """SELECT statements over public tables and views, by name."""
    keys: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Tables of which the public view shows the newest row of each key; `<table>_versions` shows all."""
    repeating: Collection[str] = ()
    """Tables with many rows of each event, whose place and envelope are therefore stored as runs of equal values."""
    derives: ClassVar[bool] = False
    """Whether rows of this projection call for further projections, which `derive` then returns."""
    bodies: Mapping[str, Body] = MappingProxyType({})
    """How to give back the bodies of an event type from a table: `events` need not store them again."""

    def __init_subclass__(
        cls, *, name: str | None = None, version: int = 1, types: Iterable[str] = (), **kwargs: Any
    ) -> None:
        super().__init_subclass__(**kwargs)
        if name is None:
            return
        cls.name, cls.version = name, version
        cls.types = (types,) if isinstance(types, str) else tuple(types)
        _check(cls)

    def initial(self) -> Any:
        """Return the state before the first event; it must be encodable as msgpack. None where there is none."""
        return None

    def advance(self, state: Any, batch: "Batch") -> tuple[Any, Rows]:
        """Fold a batch: return the next state and the rows. Override this one only where rows depend on a state."""
        return state, self.fold(batch)

    def fold(self, batch: "Batch") -> Rows:
        """Return the rows of a batch. Override it to work on whole columns; it asks `rows` for each event otherwise."""
        from .fold.rows import rows_by_event

        return rows_by_event(self, batch)

    def rows(self, event: "Entry") -> Iterable[tuple[Any, ...]]:
        """Yield the rows of one event, as tuples of the declared columns.

        A projection with several tables yields `(table, row)` pairs.
        """
        raise DeclarationError(f"projection {self.name!r} declares neither `rows` nor `fold`: write one of them")

    def derive(self, read: "Callable[[str], list[tuple[Any, ...]]]", live: Collection[str]) -> "list[Projection]":
        """Return further projections that the rows of this one call for; override it together with `derives`.

        `read` gives all rows of one of its tables, front columns first, in the order of the log; `live` names the
        projections that answer queries by now. It is asked again whenever a commit brought rows, and after each swap.
        """
        return []

    def holds(self, batch: "Batch") -> "npt.NDArray[np.intp]":
        """Return the positions in `batch` of the events whose bodies `bodies` gives back exactly."""
        import numpy as np

        held = [found.positions[found.newest] for found in map(batch.of, self.bodies)]
        return np.concatenate(held) if held else np.empty(0, np.intp)

    @cached_property
    def columns(self) -> dict[str, dict[str, str]]:
        """Columns of each table, the front ones first, with their DuckDB types."""
        return {table: {**FRONT, **_columns(self.name, table, text)} for table, text in self.tables.items()}

    @cached_property
    def signature(self) -> str:
        """A hash over what decides the rows and their shape: another signature needs another generation."""
        parts = (self.name, self.version, sorted(self.types), sorted(self.tables.items()), self.depends())
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def depends(self) -> tuple[str, ...]:
        """Return what else decides the rows; the built-in `events` names the types whose bodies others hold."""
        return ()

    def wants(self, kinds: Iterable[str]) -> bool:
        """Tell whether any of these event types is folded here."""
        return "*" in self.types or any(kind in self.types for kind in kinds)

    def __repr__(self) -> str:
        return f"<projection {self.name} version {self.version}>"


def _check(cls: type[Projection]) -> None:
    where = f"projection {cls.name!r} ({cls.__module__}.{cls.__qualname__})"
    if not _NAME.fullmatch(cls.name):
        raise DeclarationError(f"{where}: a name is lower-case letters, digits and _, such as 'gradient_alarms'")
    if type(cls.version) is not int or cls.version < 1:
        raise DeclarationError(f"{where}: version must be an integer from 1, got {cls.version!r}")
    if not cls.types:
        raise DeclarationError(f"{where}: name the event types to fold, types=('health.layer',), or ('*',) for all")
    for table, text in cls.tables.items():
        if not _TABLE.fullmatch(table):
            raise DeclarationError(f"{where}: table name {table!r} must be lower-case letters, digits and _")
        _columns(cls.name, table, text)
    for view in cls.views:
        if not _TABLE.fullmatch(view) or view in cls.tables:
            raise DeclarationError(f"{where}: view name {view!r} is taken or not lower-case letters, digits and _")
    for table, key in cls.keys.items():
        declared = {**FRONT, **_columns(cls.name, table, cls.tables.get(table, ""))}
        if table not in cls.tables or not key or any(column not in declared for column in key):
            raise DeclarationError(f"{where}: keys of {table!r} must be columns of that table, got {key!r}")


def _columns(projection: str, table: str, text: str) -> dict[str, str]:
    """Split `name VARCHAR, value DECIMAL(9, 2)` at the commas that stand outside brackets and quotes."""
    columns: dict[str, str] = {}
    for part in split(text):
        if not part.strip():
            continue
        column, _, kind = part.strip().partition(" ")
        column = column.strip('"').lower()
        if not kind.strip() or column in columns or column in FRONT or not _TABLE.fullmatch(column):
            raise DeclarationError(
                f"projection {projection!r}, table {table!r}: bad column {part.strip()!r}; write `name TYPE`, "
                f"each name once, none of {', '.join(FRONT)} (they are added in front)"
            )
        if re.search(r"\b(primary|unique|references|check|default|generated)\b", outside(kind), re.IGNORECASE):
            raise DeclarationError(
                f"projection {projection!r}, table {table!r}: column {column!r} has a constraint; tables only grow, "
                "declare the type alone"
            )
        columns[column] = spelled(kind)
    return columns
