"""Put an accepted change into the file and into the log."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

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
    _replace(path, made.after.text)
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


def _replace(path: Path, text: str) -> None:
    target = path.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(target.stat().st_mode & 0o777)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
