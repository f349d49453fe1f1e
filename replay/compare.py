"""Where two stores of one log differ: by hash, then by range of sequences, then by row.

One of the two may be far away, behind the SQL service: all that is asked of either is to run a query.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from morphogen.consumers.projections.store.hashes import bucket_hashes, content_hash
from morphogen.consumers.projections.store.layout import row_hash

BUCKET = 4096  # sequences
NESTED = ("VARIANT", "JSON", "MAP(")
_BRIEF = 200  # characters of a value that are shown


class Rows(Protocol):
    """An answer."""

    def fetchone(self) -> Any:
        """Return the next row, or None."""

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""


class Side(Protocol):
    """One of the stores: a DuckDB cursor, or something that asks another process."""

    def execute(self, query: str) -> Rows:
        """Run a query."""


@dataclass(frozen=True)
class TableCheck:
    """How a table compared: its rows and hash on both sides."""

    table: str
    live: tuple[int, str]
    log: tuple[int, str]

    @property
    def equal(self) -> bool:
        """Tell whether both sides hold the same rows."""
        return self.live == self.log


@dataclass(frozen=True)
class Difference:
    """The first row in which a table differs: its place, what the live table says, and what the log says.

    Values are text, as DuckDB shows them; a side is None where it has no such row.
    """

    table: str
    seq: int
    idx: int
    live: dict[str, str | None] | None
    log: dict[str, str | None] | None

    def __str__(self) -> str:
        where = f"table {self.table}, seq {self.seq}, idx {self.idx}"
        if self.live is None or self.log is None:
            side, row = ("log", self.log) if self.live is None else ("live table", self.live)
            return f"{where}: only the {side} has the row {_shown(row or {})}"
        changed = {
            name: (self.live[name], self.log.get(name)) for name in self.live if self.live[name] != self.log[name]
        }
        parts = ", ".join(
            f"{name} is {_brief(live)}, the log says {_brief(log)}" for name, (live, log) in changed.items()
        )
        return f"{where}: {parts}"


def check(table: str, live: Any, log: Any) -> TableCheck:
    """Hash a table on both sides."""
    return TableCheck(table, content_hash(live, table), content_hash(log, table))


def first_difference(table: str, live: Any, log: Any) -> Difference | None:
    """Return the first row, by place, in which a table differs; None where it does not."""
    start = _first_bucket(bucket_hashes(live, table, bucket=BUCKET), bucket_hashes(log, table, bucket=BUCKET))
    if start is None:
        return None
    seq = _first_bucket(_within(live, table, start), _within(log, table, start))
    return None if seq is None else _row(table, seq, live, log)


def _first_bucket(live: list[tuple[int, int, str]], log: list[tuple[int, int, str]]) -> int | None:
    ours, theirs = ({start: rest for start, *rest in side} for side in (live, log))
    differing = [start for start in ours.keys() | theirs.keys() if ours.get(start) != theirs.get(start)]
    return min(differing, default=None)


def _within(side: Any, table: str, start: int) -> list[tuple[int, int, str]]:
    """Return count and hash of each sequence of one bucket."""
    columns = [(row[0], row[1]) for row in side.execute(f'DESCRIBE "{table}"').fetchall()]
    rows = side.execute(
        f"SELECT seq, count(*), sum(h), bit_xor(h) FROM (SELECT seq, {row_hash(columns)} AS h "
        f'FROM "{table}" WHERE seq >= {start} AND seq < {start + BUCKET}) GROUP BY seq'
    ).fetchall()
    return [(int(seq), int(count), f"{int(total)} {int(mixed)}") for seq, count, total, mixed in rows]


def _row(table: str, seq: int, live: Any, log: Any) -> Difference | None:
    columns = [(row[0], row[1]) for row in log.execute(f'DESCRIBE "{table}"').fetchall()]
    names = [name for name, _ in columns]
    texts = ", ".join(
        f'"{name}"::JSON::VARCHAR' if any(word in kind for word in NESTED) else f'"{name}"::VARCHAR'
        for name, kind in columns
    )
    query = f'SELECT {texts} FROM "{table}" WHERE seq = {seq}'
    place = names.index("idx") if "idx" in names else 0
    ours, theirs = (_counted(side.execute(query).fetchall()) for side in (live, log))
    only_live = sorted(row for row, count in ours.items() if count > theirs.get(row, 0))
    only_log = sorted(row for row, count in theirs.items() if count > ours.get(row, 0))
    if not only_live and not only_log:
        return None
    idx = min(int(row[place].value or 0) for row in (*only_live, *only_log))
    at_live = next((row for row in only_live if int(row[place].value or 0) == idx), None)
    at_log = next((row for row in only_log if int(row[place].value or 0) == idx), None)
    return Difference(table, seq, idx, _named(names, at_live), _named(names, at_log))


@dataclass(frozen=True, order=True)
class _Text:
    """A value as text that sorts, null first."""

    known: bool
    text: str

    @property
    def value(self) -> str | None:
        """Return the text, or None."""
        return self.text if self.known else None


def _counted(rows: list[Any]) -> dict[tuple[_Text, ...], int]:
    counts: dict[tuple[_Text, ...], int] = {}
    for row in rows:
        key = tuple(_Text(value is not None, value or "") for value in row)
        counts[key] = counts.get(key, 0) + 1
    return counts


def _named(names: list[str], row: tuple[_Text, ...] | None) -> dict[str, str | None] | None:
    return None if row is None else {name: text.value for name, text in zip(names, row, strict=True)}


def _shown(row: dict[str, str | None]) -> str:
    return ", ".join(f"{name}={_brief(value)}" for name, value in row.items() if name not in {"seq", "idx"})


def _brief(value: str | None) -> str:
    if value is None or len(value) <= _BRIEF:
        return repr(value)
    return f"{value[:_BRIEF]!r}... ({len(value):,} characters)"
