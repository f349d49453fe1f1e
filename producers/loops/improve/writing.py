"""Put an accepted change into the file and into the log."""

from typing import TYPE_CHECKING

from morphogen.bus.place import replace
from morphogen.schemas.improve import ProgramImproved

from .errors import ImproveError
from .improver import Improvement

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

_KEPT = 128 * 1024  # bytes of text in one event


def write(bus: "Bus", made: Improvement, *, accepted_by: str) -> ProgramImproved:
    """Write the changed program over the file, whole or not at all, and record it as `loop.improved`.

    Raises ImproveError where the file is not what the change was made from any more.
    """
    path = made.path
    if path.read_text("utf-8") != made.before.text:
        raise ImproveError(f"{path} was changed meanwhile: improve it again")
    replace(path, made.after.text)
    event = ProgramImproved(
        program=str(path.absolute()),
        before_sha256=made.before.sha256,
        after_sha256=made.after.sha256,
        proposal=[one.plain() for one in made.changes],
        evidence=made.figures(),
        accepted_by=accepted_by,
        loop=made.loop,
        runs=list(made.runs),
        drafted_by=made.drafted_by,
        diff=made.diff.encode("utf-8", "replace")[:_KEPT].decode("utf-8", "ignore"),
        text=made.after.text if len(made.after.text.encode()) <= _KEPT else None,
    )
    identity = f"improved.{made.before.sha256[:24]}.{made.after.sha256[:24]}"
    bus.emit(event, label="improve", msg_id=identity)
    return event
