"""An answer to a query, and the forms in which it is wanted: Arrow, pandas, polars, rows, and files.

The Arrow table is what arrived, exactly. Other forms keep as much as they can: rows have Python's own values
(a nanosecond time is a `Moment`, a datetime that also knows its nanoseconds), JSON writes NaN and infinities as
the strings "NaN", "Infinity" and "-Infinity", CSV and JSON write nanoseconds with nine digits.
"""

import contextlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

from morphogen.bus.place import replacing

from .calendar import within_calendar
from .cells import jsonable, python_values, shown
from .errors import SqlError
from .intervals import without_intervals

if TYPE_CHECKING:
    import pandas
    import polars

Target = str | os.PathLike[str] | IO[Any]

_REPR_ROWS = 10
_REPR_WIDTH = 110
_CELL_WIDTH = 32
_CHUNK_ROWS = 8_192


class Result:
    """The rows of one answer. Iterating gives a dict for each row; `len` is the number of rows.

    `types` are DuckDB's names of the column types, `position` the sequence of the log that the answer holds at
    least, `as_of` the one it was cut at, `truncated` tells that there were more rows than asked for, `stopped` which
    projections failed in the projector, and why: their tables do not show what came since.
    """

    def __init__(
        self,
        table: pa.Table,
        types: Sequence[str] = (),
        *,
        position: int = 0,
        as_of: int | None = None,
        truncated: bool = False,
        seconds: float = 0.0,
        stopped: Sequence[str] = (),
    ) -> None:
        self._table = table.rename_columns(_distinct(table.column_names))
        self.types = list(types) or [str(field.type) for field in table.schema]
        self.position = position
        self.as_of = as_of
        self.truncated = truncated
        self.seconds = seconds
        self.stopped = list(stopped)

    @property
    def columns(self) -> list[str]:
        """Names of the columns; a name that comes twice is numbered."""
        return list(self._table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        names = self.columns
        for row in self._tuples():
            yield dict(zip(names, row, strict=True))

    def __repr__(self) -> str:
        return _small_table(self)

    def arrow(self) -> pa.Table:
        """Return the Arrow table, as it came from DuckDB.

        Its dates and times may be some that Python has not (`to_pylist` then raises); `rows` tells those.
        """
        return self._table

    def pandas(self) -> "pandas.DataFrame":
        """Return a pandas DataFrame; HUGEINT columns (sums of integers) that fit become int64, TIME_NS becomes text."""
        _need("pandas")
        table = within_calendar(self._narrowed())
        for number, field in enumerate(table.schema):
            if field.type == pa.time64("ns"):
                table = table.set_column(number, field.name, table.column(number).cast(pa.string()))
        try:
            return table.to_pandas()
        except (ValueError, pa.ArrowException):  # a date within a list or struct that Python's calendar has not
            import pandas

            return pandas.DataFrame(self.rows(), columns=self.columns)

    def polars(self) -> "polars.DataFrame":
        """Return a polars DataFrame; what polars lacks (intervals, dates beyond the years 1 to 9999) becomes text."""
        _need("polars")
        import polars

        frame = polars.from_arrow(within_calendar(without_intervals(self._narrowed()), deep=True))
        assert isinstance(frame, polars.DataFrame)
        return frame

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the rows as tuples of Python values."""
        return list(self._tuples())

    def scalar(self) -> Any:
        """Return the one value of an answer of one row and one column. Raises ValueError for any other shape."""
        if len(self) != 1 or len(self.columns) != 1:
            raise ValueError(f"the answer has {len(self)} rows and {len(self.columns)} columns, not one of each")
        return self.rows()[0][0]

    def to_csv(self, target: Target) -> None:
        """Write CSV with a header; NULL is empty, an empty string is "", nested values are JSON."""
        from pyarrow import csv

        table = self._flat()
        with opened(target, binary=True) as file:
            if table.num_columns:
                csv.write_csv(table, file)

    def to_json(self, target: Target) -> None:
        """Write one JSON array of objects."""
        with opened(target, binary=False) as file:
            file.write("[")
            for number, line in enumerate(self._json_lines()):
                file.write(("," if number else "") + "\n" + line)
            file.write("\n]\n" if len(self) else "]\n")

    def to_jsonl(self, target: Target) -> None:
        """Write one JSON object a line."""
        with opened(target, binary=False) as file:
            for line in self._json_lines():
                file.write(line + "\n")

    def to_parquet(self, target: Target) -> None:
        """Write Parquet (zstd); intervals become text."""
        from pyarrow import parquet

        with opened(target, binary=True) as file:
            try:
                parquet.write_table(without_intervals(self._table), file, compression="zstd")
            except pa.ArrowException as error:
                raise SqlError(f"Parquet cannot hold this answer ({error}): cast that column to VARCHAR") from None

    def to_arrow_file(self, target: Target) -> None:
        """Write Arrow IPC: the file format to a path, the stream format to a stream."""
        new = pa.ipc.new_file if _is_path(target) else pa.ipc.new_stream
        with opened(target, binary=True) as file, new(file, self._table.schema) as writer:
            writer.write_table(self._table)

    def _tuples(self) -> Iterator[tuple[Any, ...]]:
        for batch in self._table.to_batches(max_chunksize=_CHUNK_ROWS):
            columns = [python_values(column, kind) for column, kind in zip(batch.columns, self.types, strict=True)]
            yield from zip(*columns, strict=True) if columns else ((),) * batch.num_rows

    def _json_lines(self) -> Iterator[str]:
        names = self.columns
        documents = [kind in {"JSON", "VARIANT"} or kind.startswith("UNION") for kind in self.types]
        for row in self._tuples():
            values = {
                name: jsonable(value, document) for name, value, document in zip(names, row, documents, strict=True)
            }
            yield json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    def _narrowed(self) -> pa.Table:
        """Make int64 of HUGEINT columns whose values allow it: pandas and polars calculate badly with decimals."""
        table = self._table
        for number, (field, kind) in enumerate(zip(table.schema, self.types, strict=True)):
            if kind == "HUGEINT":
                with contextlib.suppress(pa.ArrowInvalid):
                    table = table.set_column(number, field.name, table.column(number).cast(pa.int64()))
        return table

    def _flat(self) -> pa.Table:
        """Return the table with every column that CSV cannot hold as text."""
        table = within_calendar(self._table)
        for number, (field, kind) in enumerate(zip(table.schema, self.types, strict=True)):
            if pa.types.is_nested(field.type) or pa.types.is_interval(field.type) or pa.types.is_binary(field.type):
                values = [
                    None if value is None else _csv_text(value) for value in _python_column(table.column(number), kind)
                ]
                table = table.set_column(number, field.name, pa.array(values, pa.string()))
            elif pa.types.is_dictionary(field.type) or pa.types.is_decimal(field.type) or pa.types.is_null(field.type):
                table = table.set_column(number, field.name, table.column(number).cast(pa.string()))
        return table


@contextlib.contextmanager
def opened(target: Target, *, binary: bool) -> Iterator[Any]:
    """Open a path so that the file appears whole or not at all, or pass a stream on, text or binary as needed.

    A link stays one, and a file that was there keeps its permissions; a pipe or a device is written straight into.
    """
    if _is_path(target):
        with replacing(Path(target)) as file:  # type: ignore[arg-type]
            if binary:
                yield file
            else:
                with opened(file, binary=False) as text:
                    yield text
        return
    stream: Any = target
    if binary:
        yield _Unclosed(getattr(stream, "buffer", stream))
    elif isinstance(stream, io.TextIOBase):
        yield stream
    else:
        wrapper = io.TextIOWrapper(stream, encoding="utf-8", write_through=True)
        try:
            yield wrapper
        finally:
            wrapper.flush()
            wrapper.detach()


class _Unclosed(io.RawIOBase):
    """Someone else's stream, which the writers of pyarrow would close."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raw = bytes(data)
        if isinstance(self._stream, io.TextIOBase):  # text without bytes below it, such as a StringIO
            self._stream.write(raw.decode())
        else:
            self._stream.write(raw)
        return len(raw)


def _python_column(column: Any, kind: str) -> Iterator[Any]:
    for chunk in column.chunks:
        yield from python_values(chunk, kind)


def _is_path(target: Target) -> bool:
    return isinstance(target, str | os.PathLike)


def _need(package: str) -> None:
    try:
        __import__(package)
    except ImportError as error:
        advice = f"run pip install {package}, or use .arrow() or .rows()"
        raise ImportError(f"{package} is not installed: {advice}") from error


def _distinct(names: list[str]) -> list[str]:
    seen: set[str] = set()
    distinct = []
    for name in names:
        candidate, number = name, 1
        while candidate in seen:
            candidate, number = f"{name}_{number}", number + 1
        seen.add(candidate)
        distinct.append(candidate)
    return distinct


def _csv_text(value: Any) -> str:
    plain = jsonable(value, False)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def _small_table(result: Result) -> str:
    """Draw the first rows, as wide as a terminal; columns that do not fit are counted."""
    head = result.arrow().slice(0, _REPR_ROWS)
    cells = [
        [name, *(_cut(shown(value)) for chunk in column.chunks for value in python_values(chunk, kind))]
        for name, column, kind in zip(result.columns, head.columns, result.types, strict=True)
    ]
    numeric = [pa.types.is_integer(f.type) or pa.types.is_floating(f.type) for f in head.schema]
    widths, used, kept = [], 0, 0
    for column in cells:
        width = max(map(len, column))
        if kept and used + width + 2 > _REPR_WIDTH:
            break
        widths.append(width)
        used += width + 2
        kept += 1
    lines = []
    for row in range(head.num_rows + 1):
        parts = (
            column[row].rjust(width) if right and row else column[row].ljust(width)
            for column, width, right in zip(cells[:kept], widths, numeric, strict=False)
        )
        lines.append("  ".join(parts).rstrip())
        if row == 0:
            lines.append("  ".join("-" * width for width in widths))
    more = "+, cut" if result.truncated else ""
    hidden = f", {len(cells) - kept} more columns" if len(cells) > kept else ""
    plural = "" if len(result) == 1 else "s"
    lines.append(f"({len(result)}{more} row{plural}{hidden})")
    return "\n".join(lines)


def _cut(text: str) -> str:
    line = " ".join(text.split("\n"))
    return line if len(line) <= _CELL_WIDTH else line[: _CELL_WIDTH - 1] + "…"
