"""`session`: begin a session of a name, or carry on the one that is there."""

import fcntl
import os
import shutil
import weakref
from pathlib import Path
from typing import Any

from morphogen.bus.settings import Settings
from morphogen.kernels.kv.transport import Transport
from morphogen.schemas import Event, token
from morphogen.schemas.kv import SessionSaved

from .continuity import Session
from .diary import Diary
from .errors import SessionError
from .journal import NAME
from .speaker import LlamaSpeaker


def session(
    name: str,
    llm: Any,
    *,
    home: str | Path | None = None,
    settings: Settings | None = None,
    every: int | None = 512,
    template: bool = True,
    events: bool | None = None,
    saved: SessionSaved | None = None,
    transport: Transport | None = None,
) -> Session:
    """Return the session `name` on a `llama_cpp.Llama`, with all that was said in it, by whatever process.

    Its files are in `<home>/sessions`; a KV state is saved each `every` tokens. `template=False` takes texts as they
    are, without the model's chat template. `events` says whether turns and savings are recorded in the log: None does
    so where a broker is configured or runs. Raises SessionBusy where another process has it, SessionError where its
    journal cannot be read or was held with another vocabulary.

    Where there is no session of that name here, `saved` (what `save_continuity` returned, or its event in the log) says
    where it is to be had; `transport` opens it where that is no file of this machine.
    """
    if not isinstance(name, str):
        raise SessionError(f"the name of a session is text, not {name!r}")
    chosen = settings or Settings.from_environ(home=home)
    folder = chosen.home / "sessions" / token(name)
    speaker = LlamaSpeaker(llm, cache=chosen.home / "kv")
    if saved is not None:
        _bring(saved, transport, folder)
    diary = Diary(chosen, f"session-{name}") if events else None
    if events is None:
        diary = Diary.where_heard(chosen, f"session-{name}")

    def tell(event: Event) -> None:
        if diary is not None:
            diary.tell(event)

    made = Session(
        name,
        speaker,
        folder,
        tell=tell,
        every=every,
        template=template,
        model=Path(str(getattr(llm, "model_path", ""))).name,
    )
    if diary is not None:
        weakref.finalize(made, diary.close)
    return made


def _bring(saved: SessionSaved, transport: Transport | None, folder: Path) -> None:
    """Fetch a saved session into a folder where none is, one process at a time.

    Its journal comes last, so that a session is there whole or not at all, and never in the place of another one, which its
    owner may be writing to.
    """
    if (folder / NAME).exists():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (folder / ".bringing").open("ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if not (folder / NAME).exists():
                _fetch(saved, transport, folder)
    except OSError as error:
        raise SessionError(f"session {saved.session} cannot be put into {folder}: {error.strerror or error}") from error


def _put(part: Path, path: Path) -> None:
    """Give a file its name where nothing has it: somebody may have begun a session meanwhile, without saved=."""
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            part.replace(path)
            return
    part.unlink()


def _fetch(saved: SessionSaved, transport: Transport | None, folder: Path) -> None:
    wanted = [(saved.ref, f"{saved.state}.kv")] if saved.ref is not None else []
    for ref, file in (*wanted, (saved.journal, NAME)):
        part = folder / f".{file}.part"
        if ref.transport == "disk" and transport is None:
            try:
                shutil.copyfile(ref.place, part)
            except OSError as error:
                raise SessionError(
                    f"session {saved.session} cannot be had from {ref.place}: {error.strerror}"
                ) from error
        elif transport is None:
            raise SessionError(
                f"session {saved.session} lies in transport {ref.transport}: give the transport that opens it"
            )
        else:
            with transport.open(ref) as mapped:
                part.write_bytes(mapped.buffer)
                mapped.check()
        if file == NAME:
            _put(part, folder / file)
        else:
            part.replace(folder / file)
