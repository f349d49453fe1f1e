"""An event as a line for people, or as a JSON object."""

from datetime import datetime

from morphogen.bus.bodies import reference
from morphogen.bus.bus import Seen
from morphogen.replay.lines import line
from morphogen.schemas import Unknown, decode, json_text

_WIDTH = 160


def shown(seen: Seen, *, as_json: bool = False) -> str:
    """Return one line: time, place, run, step, type, and what the event says."""
    record, frame = seen.record, seen.frame
    if as_json:
        return line(frame, seen.idx, record)
    body = decode(record.body)
    clock = datetime.fromtimestamp(record.time / 1e9).strftime("%H:%M:%S.%f")[:-3]
    step = "" if record.step is None else f" step {record.step}"
    text = json_text(body)
    mark = ""
    if reference(record.body) is not None:
        mark = " (in a blob that is gone)"
    elif isinstance(seen.event, Unknown):
        mark = " (unknown here)"
    return f"{clock} {frame.seq}.{seen.idx} {frame.run}/{frame.attempt}{step} {record.type}{mark} {text[:_WIDTH]}"
