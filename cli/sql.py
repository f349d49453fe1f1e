"""`sql` and `snapshot`: ask the tables, and write them out for other tools."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from morphogen.schemas import MorphogenError

from .app import app, settings_of
from .bars import bar
from .saying import WIDE, cell, console, echo
from .standard import needed_input, needed_output
from .tables import SHOWN

if TYPE_CHECKING:
    from morphogen.consumers.projections.sql.formats import Result


class Format(StrEnum):
    """How rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    PARQUET = "parquet"
    ARROW = "arrow"


class SnapshotFormat(StrEnum):
    """What a snapshot is."""

    DUCKDB = "duckdb"
    PARQUET = "parquet"


@app.command()
def sql(
    context: typer.Context,
    statement: Annotated[str, typer.Argument(help="One SELECT; '-' reads it from standard input.")],
    form: Annotated[
        Format | None, typer.Option("--format", "-f", help="Default: by the output's ending, else a table.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file instead of standard output.")] = None,
    as_of: Annotated[
        str | None, typer.Option(help="As it stood at a sequence or a time: 812, 2026-11-20T14:05, '5m ago'.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until all that the log holds now is in the tables.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds the answer may take.")] = 60.0,
    max_rows: Annotated[int | None, typer.Option(help="Cut the answer after so many rows.")] = None,
) -> None:
    """Ask the tables in SQL. Without a running projector the tables are caught up first."""
    from morphogen.consumers.projections.sql.query import query

    if output is None:
        needed_output()  # found out now, and not after the work
    text = _typed() if statement == "-" else statement
    chosen = form or _by_ending(output)
    with bar("catching up") as tell:
        result = query(
            text,
            as_of=as_of,
            wait=wait or None,
            timeout=timeout,
            max_rows=max_rows,
            settings=settings_of(context),
            progress=tell,
        )
    for reason in result.stopped:
        echo(f"morphogen: {reason}", err=True)
    if chosen is Format.TABLE:
        _print(result, output)
        return
    {
        Format.CSV: result.to_csv,
        Format.JSON: result.to_json,
        Format.JSONL: result.to_jsonl,
        Format.PARQUET: result.to_parquet,
        Format.ARROW: result.to_arrow_file,
    }[chosen](output or sys.stdout.buffer)  # in UTF-8, whatever the terminal reads


@app.command()
def snapshot(
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(help="A folder (FOLDER/ is made), or a file's name; the position is put into the name.")
    ],
    form: Annotated[
        SnapshotFormat, typer.Option("--format", "-f", help="A DuckDB file, or a folder of Parquet.")
    ] = SnapshotFormat.DUCKDB,
) -> None:
    """Write all tables, at one position, for outside tools. Prints the path."""
    from morphogen.consumers.projections.sql.query import snapshot as write_snapshot

    with bar("writing") as tell:
        echo(write_snapshot(target, form.value, settings=settings_of(context), progress=tell))


def _typed() -> str:
    try:
        return needed_input().read()
    except UnicodeDecodeError as error:
        raise MorphogenError(f"standard input is not {error.encoding.upper()} text (byte {error.start})") from error


def _by_ending(output: Path | None) -> Format:
    endings = {
        ".csv": Format.CSV,
        ".json": Format.JSON,
        ".jsonl": Format.JSONL,
        ".parquet": Format.PARQUET,
        ".arrow": Format.ARROW,
    }
    return Format.TABLE if output is None else endings.get(output.suffix.lower(), Format.TABLE)


def _print(result: "Result", output: Path | None) -> None:
    rows = result.rows()
    if output is not None:
        from morphogen.consumers.projections.sql.formats import opened

        with opened(output, binary=False) as file:
            Console(file=file, width=WIDE).print(_table(result, rows))
        return
    out = console()
    table = _table(result, rows[:SHOWN])
    if rows and Measurement.get(out, out.options.update(width=WIDE), table).maximum > out.width:
        for number, row in enumerate(rows[:SHOWN]):
            out.print(_record(result, row, number))
    else:
        out.print(table)
    more = f", the first {SHOWN:,} shown (--format csv shows all)" if len(rows) > SHOWN else ""
    echo(f"{len(rows):,} row{'' if len(rows) == 1 else 's'}{more}", err=True)


def _table(result: "Result", rows: list[tuple[object, ...]]) -> Table:
    table = Table(show_edge=False, header_style="bold")
    numeric = _numeric(result)
    for name in result.columns:
        table.add_column(cell(name), justify="right" if name in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _record(result: "Result", row: tuple[object, ...], number: int) -> Table:
    """Return a row as lines of name and value, for rows that are wider than the terminal."""
    record = Table(show_header=False, show_edge=False, box=None, title=f"row {number + 1}", title_justify="left")
    record.add_column(style="bold")
    record.add_column(overflow="fold")
    for name, value in zip(result.columns, row, strict=True):
        record.add_row(cell(name), _cell(value))
    return record


def _cell(value: object) -> str:
    from morphogen.consumers.projections.sql.cells import shown  # with pyarrow, which the answer has brought

    return "[dim]NULL[/]" if value is None else cell(shown(value, whole=True))


def _numeric(result: "Result") -> set[str]:
    import pyarrow as pa

    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    return {field.name for field in result.arrow().schema if any(is_kind(field.type) for is_kind in kinds)}
