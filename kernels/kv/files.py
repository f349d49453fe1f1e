"""KV states in files: written whole or not at all, and mapped to be read."""

import contextlib
import mmap
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from morphogen.schemas.kv import KvRef

from .errors import KvError, KvRefused
from .state import KvState


class FileRoom:
    """Room in a file that nobody sees yet."""

    def __init__(self, buffer: memoryview, target: Path) -> None:
        self.buffer = buffer
        self.target = target
        self.used = 0

    def commit(self, state: KvState) -> KvRef:
        """Take note that the state is whole: the file takes its name when the `with` block ends."""
        self.used = state.size
        return state.ref("disk", str(self.target))


@contextlib.contextmanager
def create(path: "str | Path", size: int) -> Iterator[FileRoom]:
    """Give room for a state of `size` bytes that becomes the file `path`, on disk, when it was committed.

    A file of that name is replaced in one step; a link stays one. Raises KvError where the disk is full, the folder cannot
    be written, or something is there that is no plain file.
    """
    target = Path(path).absolute()
    if "\0" in str(target):
        raise KvError(f"{str(target)!r} cannot be the name of a file: it holds a zero byte")
    try:
        os.fsencode(target)
    except UnicodeEncodeError as error:
        raise KvError(f"{str(target)!r} cannot be the name of a file: {error.reason}") from error
    try:
        if target.is_symlink():
            target = Path(os.path.realpath(target))
            if target.is_symlink():
                raise KvError(f"the state cannot be written to {target}: its links lead in a circle; name another file")
        if target.is_dir():  # found out now, and not after the work
            raise KvError(f"the state cannot be written to {target}: it is a folder; name a file in it")
        if target.exists() and not target.is_file():  # /dev/null and a pipe must stay what they are
            raise KvError(f"the state cannot be written to {target}: it is no plain file; name another one")
        target.parent.mkdir(parents=True, exist_ok=True)
        with _nameless(target) as (handle, name):
            _allocate(handle, size)
            mapped = mmap.mmap(handle, size)
            room = FileRoom(memoryview(mapped), target)
            yield room
            with contextlib.suppress(BufferError):  # the caller still looks at the state: the mapping lives on with it
                room.buffer.release()
            if not room.used:
                raise KvError(f"no state was written for {target}")
            mapped.flush()
            os.ftruncate(handle, room.used)
            os.fsync(handle)
            _name(handle, name, target)
    except OSError as error:
        raise KvError(f"the state cannot be written to {target}: {error.strerror or error}") from error


@contextlib.contextmanager
def _nameless(target: Path) -> "Iterator[tuple[int, str]]":
    """Open a file without a name, so that a killed process leaves none; where that cannot be had, one named `.part`."""
    name = ""
    try:
        handle = os.open(target.parent, os.O_TMPFILE | os.O_RDWR, 0o600)
    except (OSError, AttributeError):
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{_brief(target)}-", suffix=".part")
    try:
        yield handle, name
    finally:
        os.close(handle)
        if name:
            with contextlib.suppress(OSError):
                os.unlink(name)


def write_kv(path: "str | Path", state: KvState) -> KvRef:
    """Write a state to a file, whole or not at all; return where it is."""
    with create(path, state.size) as room:
        room.buffer[: state.size] = state.buffer
        return room.commit(state)


def open_kv(path: "str | Path", *, offset: int = 0, size: int | None = None) -> KvState:
    """Map a file and return its state; start and header are verified, the payload by `.verify()`.

    Raises KvRefused for a file that holds no whole state, KvError where it cannot be read.
    """
    where = Path(path)
    handle, length = open_plain(where)
    try:
        if length == 0:
            raise KvRefused(f"{where}: an empty file is no KV state")
        mapped = mmap.mmap(handle, length, access=mmap.ACCESS_READ)
    except OSError as error:
        raise KvError(f"{where} cannot be read: {error.strerror or error}") from error
    finally:
        os.close(handle)
    end = length if size is None else offset + size
    if not 0 <= offset <= end <= length:
        raise KvRefused(f"{where}: cut off: bytes {offset} to {end} are wanted, it has {length}")
    state = KvState.read(memoryview(mapped)[offset:end], str(where))
    if size is None and state.size != end - offset:
        raise KvRefused(
            f"{where}: {end - offset - state.size} bytes follow the state: they are none of ours; export it again"
        )
    return state


def open_plain(path: Path) -> tuple[int, int]:
    """Return a descriptor of a file and its bytes. Raises KvError for what cannot be read, or is no plain file.

    Nothing is waited for: to open a pipe as a file would wait for its writer, for ever if there is none.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise KvError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a zero byte in the name
        raise KvError(f"{str(path)!r} cannot be the name of a file: {error}") from error
    told = os.fstat(handle)
    if not stat.S_ISREG(told.st_mode):
        os.close(handle)
        raise KvError(f"{path} is no plain file: a KV state is read from a file, or from bytes")
    return handle, told.st_size


def _brief(target: Path) -> str:
    return os.fsencode(target.name)[:60].decode("utf-8", "ignore")  # what is put around it must fit into a name, too


def _allocate(file: int, size: int) -> None:
    # without it a full disk would end the process (SIGBUS) in the middle of a write to the mapping
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)


def _name(handle: int, name: str, target: Path) -> None:
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        if not name:  # with a folder's descriptor os.link follows the link that /proc gives
            name = f"{target.parent}/.{_brief(target)}-{secrets.token_hex(6)}.part"
            os.link(f"/proc/self/fd/{handle}", name, src_dir_fd=folder, follow_symlinks=True)
        try:
            os.replace(name, target)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        os.fsync(folder)
    finally:
        os.close(folder)
