"""`tool.sql`: a question to the tables of the log, asked of whoever serves SQL on the bus.

The wire form is small: a msgpack map goes out on `morphogen.sql.query`, parts come back that hold one Arrow stream between them.
"""

import io
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from morphogen.bus.errors import BusError, NoResponders, RequestTimeout, ServiceError
from morphogen.schemas.knowledge.tools import TOOLS, Signature

from ..errors import ToolFailed, Unserved
from .toolbox import ToolCall, ToolResult, limit

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

SUBJECT = "morphogen.sql.query"
_TIMEOUT = 30.0  # seconds
_ROWS = 1000


def ask(
    bus: "Bus", sql: str, *, max_rows: int | None = None, timeout: float = _TIMEOUT, fresh: bool = True
) -> list[dict[str, Any]]:
    """Return the rows of one SELECT as maps; with `fresh` the answer holds all that the log holds now.

    Raises Unserved where nobody answers, ToolFailed with the service's own words.
    """
    question = {"sql": sql, "timeout": timeout, "max_rows": max_rows, "fresh": fresh}
    arrow = io.BytesIO()
    try:
        for chunk in bus.request_stream(SUBJECT, msgspec.msgpack.encode(question), timeout=timeout + 2.0):
            part = msgspec.msgpack.decode(chunk)
            failure = part.get("failure")
            if failure is not None:
                raise ToolFailed(f"tool.sql: {' '.join(str(failure.get('line', 'refused')).split())}")
            arrow.write(part.get("data") or b"")
    except NoResponders:
        raise Unserved("tool.sql: no projector answers: start one with `morphogen up --projector`") from None
    except (RequestTimeout, ServiceError) as error:
        raise ToolFailed(f"tool.sql: {error}") from error
    except BusError as error:
        raise ToolFailed(f"tool.sql: {error}") from error
    import pyarrow as pa

    arrow.seek(0)
    with pa.ipc.open_stream(arrow) as reader:
        return [{name: _plain(value) for name, value in row.items()} for row in reader.read_all().to_pylist()]


class Sql:
    """Asks the tables."""

    signature: Signature = TOOLS["tool.sql"]

    def effect(self, arguments: Mapping[str, Any]) -> str:
        """Return read."""
        return "read"

    def plan(self, call: ToolCall) -> Any:
        """Return the question."""
        return {"query": call.arguments["query"]}

    def run(self, call: ToolCall) -> ToolResult:
        """Return the rows."""
        if call.context.bus is None:
            raise ToolFailed("tool.sql: this run has no bus to ask on")
        began = time.monotonic_ns()
        rows = ask(
            call.context.bus,
            call.arguments["query"],
            max_rows=int(limit(call, "max_rows", _ROWS)),
            timeout=limit(call, "timeout", _TIMEOUT),
        )
        return ToolResult(output=rows, resources={"rows": len(rows)}, duration_ns=time.monotonic_ns() - began)


def _plain(value: Any) -> Any:
    """Return a cell as a value of the language: what has no counterpart becomes text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)
