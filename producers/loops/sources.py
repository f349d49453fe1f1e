"""The program of a run: kept in the log with the run, compared with its file when somebody goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.schemas import decode, encode
from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.loading import read_text
from morphogen.schemas.knowledge.program import Program, load, load_text

from .errors import LoopError, ProgramChanged
from .history import History
from .tools import Toolbox

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus

_TEXT = 128 * 1024  # bytes of program text in one event; larger programs are blobs


def program_of(bus: "Bus", history: History, tools: Toolbox, path: Path | None, accept: bool) -> tuple[Program, bool]:
    """Return the program to go on with, and whether it is another one than before."""
    state = history.state
    source = history.source
    if source is None:
        raise LoopError(f"run {history.run}: the log lacks its program: was the start trimmed without an archive?")
    kept, used = source.text, source.used
    if source.text_blob is not None:
        whole: dict[str, Any] = decode(bus.blobs.get(source.text_blob))
        kept, used = whole["text"], whole["used"]
    file = path or Path(state.program)
    try:
        now: Program | None = load(file, tools=tools.signatures)
    except KnowledgeError as error:
        if path is not None or (file.exists() and accept):
            raise
        if file.exists() and not _as_kept(file, kept, used):
            raise ProgramChanged(
                f"{file} was changed since run {history.run} began, and does not check: {error}"
            ) from error
        now = None
    if now is None or now.sha256 == state.sha256:
        return load_text(kept or "", state.program, tools=tools.signatures, used=used, sealed=True), False
    if not accept:
        raise ProgramChanged(
            f"{file} was changed since run {history.run} began: put it back, or go on with "
            "`--accept-changed-program` (steps that are done stay done)"
        )
    return now, True


def _as_kept(file: Path, text: str | None, used: Mapping[str, str]) -> bool:
    """Tell whether a file that does not check says what the log holds, which an earlier version may have let pass."""
    try:
        return not used and read_text(file) == text
    except KnowledgeError:
        return False


def kept_source(program: Program, bus: "Bus") -> tuple[str | None, dict[str, str], str | None]:
    """Return text and used texts as an event holds them, or, for a large program, the blob that holds both."""
    size = len(program.text.encode()) + sum(len(text.encode()) for text in program.used.values())
    if size <= _TEXT:
        return program.text, dict(program.used), None
    return None, {}, bus.blobs.put(encode({"text": program.text, "used": dict(program.used)}))
