"""Trace items: from a case and values to an event, from a line that a program prints to both, and back to a case."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from morphogen.schemas import Event, MorphogenError, decode
from morphogen.schemas.knowledge.aggregates import Item

from .errors import EmitFailed, one_line

if TYPE_CHECKING:
    from morphogen.schemas.knowledge.program import Program
    from morphogen.schemas.knowledge.types import Type

MARK = "MORPHOGEN_TRACE"
ORIGINS = ("measured", "simulated", "projected")
_OWN = ("case", "origin")
_LARGEST = 256 * 1024  # bytes of an item: a frame has room for it and for what goes with it


@dataclass(frozen=True)
class TraceLine:
    """One line `MORPHOGEN_TRACE {"case": ..., ...}`: the case, its fields, and the line's number from 1."""

    case: str
    values: Mapping[str, Any]
    origin: str
    number: int


def trace_lines(text: str) -> Iterator[TraceLine]:
    """Yield the trace lines of a program's output. Raises EmitFailed that names the first line that is wrong."""
    for number, line in enumerate(text.splitlines(), start=1):
        before, mark, rest = line.partition(MARK)
        if not mark or before.strip():
            continue
        try:
            values = json.loads(rest)
        except (ValueError, RecursionError) as error:
            raise EmitFailed(f"line {number} of the output: {MARK} is not followed by JSON: {error}") from error
        if not isinstance(values, dict) or not isinstance(values.get("case"), str):
            raise EmitFailed(f'line {number} of the output: write {MARK} {{"case": "Name", "field": value, ...}}')
        origin = values.get("origin", "measured")
        if origin not in ORIGINS:
            raise EmitFailed(f"line {number} of the output: origin is one of {', '.join(ORIGINS)}, got {origin!r}")
        fields = {name: value for name, value in values.items() if name not in _OWN}
        yield TraceLine(values["case"], fields, origin, number)


def item_event(
    program: "Program", case: str, values: Mapping[str, Any], *, origin: str = "measured", source: str = ""
) -> Event:
    """Return the event of a trace item. Raises EmitFailed that names the case and the field."""
    from morphogen.schemas.knowledge.cases import make_item

    try:
        info = program.case(case)
        event = make_item(program, case, plain_fields(values, info.fields), origin=origin, source=source)
        size = len(event.encode())
    except (MorphogenError, ArithmeticError, ValueError, RecursionError) as error:
        raise EmitFailed(one_line(error)) from error
    if size > _LARGEST:
        raise EmitFailed(
            f"an item of {case} is {size:,} bytes, and at most {_LARGEST:,} are kept: put its data into a file"
        )
    return event


def plain_fields(values: Mapping[str, Any], fields: "Mapping[str, Type]") -> dict[str, Any]:
    """Return values as an event can hold them: arithmetic gives floats, and a whole one fits where an int is declared."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        declared = fields.get(name)
        whole = declared is not None and declared.kind == "int" and isinstance(value, float) and value.is_integer()
        found[name] = int(value) if whole else dict(value) if isinstance(value, Item) else value
    return found


def case_of(program: "Program", type_name: str) -> str | None:
    """Return the full name of the case that an event type belongs to, None for another module's."""
    from morphogen.schemas.knowledge.cases import type_of

    for name, info in program.cases.items():
        if type_of(info) == type_name:
            return name
    return None


def fields_of(event: Event) -> dict[str, Any]:
    """Return an event's fields as plain values."""
    found: dict[str, Any] = decode(event.encode())
    return found
