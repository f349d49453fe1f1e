"""What stands where a user wants a file: it is there whole or not at all, a link stays a link, a pipe what it is."""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_LONGEST = 60  # bytes of a name that are kept where more is put around it


def is_plain(path: Path) -> bool:
    """Tell whether a new file may take the place: nothing is there, or a file, behind links or not.

    Below `/dev` and `/proc` none may: `/dev/stdout` can mean a file, and that one is open already.
    """
    folder = os.path.realpath(path.parent)
    return folder != "/dev" and not folder.startswith("/proc/") and (os.path.isfile(path) or not os.path.exists(path))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write, which takes that place whole when the block ends well; otherwise all stays as it was.

    A link stays one, and a file keeps its permissions. A pipe or a device is written straight into, at its end. An
    OSError of the file names the path as its user does.
    """
    part: Path | None = None
    try:
        if not is_plain(path):
            with path.open("ab") as file:
                yield file
            return
        target = Path(os.path.realpath(path)) if os.path.islink(path) else path
        mode = stat.S_IMODE(target.stat().st_mode) if os.path.exists(target) else None
        brief = os.fsencode(target.name)[:_LONGEST].decode("utf-8", "ignore")
        part = target.with_name(f".{brief}.{secrets.token_hex(4)}.part")
        with part.open("xb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        if error.filename is None or error.filename == (part and str(part)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        if part is not None:
            part.unlink(missing_ok=True)


def replace(path: Path, data: bytes | str) -> None:
    """Write a whole file as `replacing` does; text as UTF-8, its line ends as they are."""
    with replacing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)
