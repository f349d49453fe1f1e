"""Files of one folder, for a tool that may see no other: every path is walked below the folder's descriptor.

The walk is openat2(2) with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS; where the kernel lacks it
(before 5.6), one O_NOFOLLOW step per part. What is found must be a regular file with one name: links, fifos, devices and
sockets are refused before they are opened for reading. A write goes to a new file that then takes the name.
"""

import contextlib
import ctypes
import os
import secrets
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from .errors import BadCapability, Refused

_OPENAT2 = 437  # on every architecture
_BENEATH, _NO_SYMLINKS, _NO_MAGICLINKS = 0x08, 0x04, 0x02
_MAX_PATH, _MAX_PARTS = 1024, 32
_MAX_ENTRIES = 10_000
_UNKNOWN_CALL = 38  # ENOSYS
_libc = ctypes.CDLL(None, use_errno=True)


class Workspace:
    """One folder that a tool may read, and write where `write` says so.

    Paths are relative, with `/`, of plain parts. Each file may hold at most `max_bytes`.
    """

    def __init__(self, folder: str | Path, *, write: bool = False, max_bytes: int = 1 << 20) -> None:
        self.folder = Path(folder)
        self.write = write
        self.max_bytes = max_bytes
        if not self.folder.is_dir():
            raise BadCapability(f"the workspace {str(folder)!r} is no folder; create it first")

    def read_bytes(self, path: str) -> bytes:
        """Return what a file holds."""
        with self._root() as root, self._found(root, path) as found:
            data = bytearray()
            while piece := os.read(found, 1 << 20):
                data += piece
                if len(data) > self.max_bytes:
                    raise Refused(f"{path!r} holds more than {self.max_bytes} bytes; read a smaller file")
            return bytes(data)

    def read_text(self, path: str) -> str:
        """Return what a file holds, as UTF-8."""
        try:
            return self.read_bytes(path).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused(f"{path!r} is no UTF-8 text; use read_bytes") from None

    def write_bytes(self, path: str, data: bytes) -> None:
        """Put a file in place, whole or not at all."""
        self._may_write(path)
        if not isinstance(data, bytes):
            raise Refused(f"{path!r} takes bytes here, not {type(data).__name__}; use write_text for text")
        if len(data) > self.max_bytes:
            raise Refused(f"{path!r} would hold more than {self.max_bytes} bytes; write less")
        with self._root() as root, self._parent(root, path) as (folder, name):
            _refuse_all_but_files(folder, name, path)
            fresh = f".{secrets.token_hex(8)}.new"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(fresh, flags, 0o644, dir_fd=folder)
            try:
                with open(handle, "wb") as file:
                    file.write(data)
                os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError as error:
                with contextlib.suppress(OSError):
                    os.unlink(fresh, dir_fd=folder)
                raise Refused(f"{path!r} cannot be written: {error.strerror}") from None

    def write_text(self, path: str, text: str) -> None:
        """Put a file of UTF-8 in place, whole or not at all."""
        self.write_bytes(path, text.encode("utf-8"))

    def append_text(self, path: str, text: str) -> None:
        """Put text after what a file holds; the file is made where there is none."""
        before = self.read_bytes(path) if self.exists(path) else b""
        self.write_bytes(path, before + text.encode("utf-8"))

    def exists(self, path: str) -> bool:
        """Say whether there is a regular file of this name; what is something else is refused."""
        try:
            with self._root() as root, self._found(root, path):
                return True
        except FileNotFoundError:
            return False

    def list_folder(self, path: str = "") -> list[str]:
        """Return the names in a folder, sorted; folders end with `/`, and what is neither is left out."""
        with self._root() as root, self._opened(root, _parts(path) if path else [], os.O_DIRECTORY, path) as folder:
            names = []
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        names.append(f"{entry.name}/")
                    elif entry.is_file(follow_symlinks=False):
                        names.append(entry.name)
                    if len(names) > _MAX_ENTRIES:
                        raise Refused(f"{path!r} holds more than {_MAX_ENTRIES} names; use folders")
            return sorted(name for name in names if _is_text(name))

    def remove(self, path: str) -> None:
        """Remove one regular file."""
        self._may_write(path)
        with self._root() as root, self._parent(root, path) as (folder, name):
            if not _refuse_all_but_files(folder, name, path):
                raise Refused(f"there is no file {path!r}; list the folder to see what there is")
            os.unlink(name, dir_fd=folder)

    def make_folder(self, path: str) -> None:
        """Make a folder, where there is none yet."""
        self._may_write(path)
        with self._root() as root, self._parent(root, path) as (folder, name):
            try:
                os.mkdir(name, 0o755, dir_fd=folder)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    raise Refused(f"{path!r} is no folder; choose another name") from None

    def _may_write(self, path: str) -> None:
        if not self.write:
            raise Refused(f"{path!r} cannot be changed: the workspace is read-only")

    @contextlib.contextmanager
    def _root(self) -> Iterator[int]:
        with _closing(os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            yield root

    @contextlib.contextmanager
    def _parent(self, root: int, path: str) -> Iterator[tuple[int, str]]:
        *folders, name = _parts(path)
        try:
            with self._opened(root, folders, os.O_DIRECTORY, path) as folder:
                yield folder, name
        except FileNotFoundError:
            raise Refused(f"there is no folder for {path!r}; make it first") from None

    @contextlib.contextmanager
    def _found(self, root: int, path: str) -> Iterator[int]:
        """Open a regular file with one name, having looked at it without opening it."""
        parts = _parts(path)
        with self._opened(root, parts, os.O_PATH, path) as seen:
            kind = os.fstat(seen)
            _refuse_kind(kind, path)
            with self._opened(root, parts, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, path) as found:
                now = os.fstat(found)
                if (now.st_dev, now.st_ino) != (kind.st_dev, kind.st_ino):
                    raise Refused(f"{path!r} was exchanged while it was opened; try again")
                _refuse_kind(now, path)
                yield found

    @contextlib.contextmanager
    def _opened(self, root: int, parts: list[str], flags: int, path: str) -> Iterator[int]:
        try:
            handle = beneath(root, parts, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Refused(f"{path!r} cannot be opened: {error.strerror}; links and ways out are not followed") from None
        with _closing(handle):
            yield handle


def beneath(root: int, parts: list[str], flags: int) -> int:
    """Open what `parts` lead to below the folder `root`, following no link of any kind; OSError as `os.open`."""
    if not parts:
        return os.open(".", flags, dir_fd=root)
    how = struct.pack("<QQQ", flags, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    path = "/".join(parts).encode()
    handle: int = _libc.syscall(_OPENAT2, root, ctypes.c_char_p(path), ctypes.c_char_p(how), ctypes.c_size_t(len(how)))
    if handle >= 0:
        return handle
    code = ctypes.get_errno()
    if code == _UNKNOWN_CALL:
        return walk(root, parts, flags)
    raise OSError(code, os.strerror(code))


def walk(root: int, parts: list[str], flags: int) -> int:
    """Do as `beneath` does, one part at a time, for kernels without openat2."""
    with contextlib.ExitStack() as stack:
        at = root
        for part in parts[:-1]:
            step = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            at = os.open(part, step, dir_fd=at)
            stack.callback(os.close, at)
        handle = os.open(parts[-1], flags | os.O_NOFOLLOW, dir_fd=at)
    if stat.S_ISLNK(os.fstat(handle).st_mode):  # O_PATH with O_NOFOLLOW opens the link itself
        os.close(handle)
        raise OSError(40, os.strerror(40))
    return handle


@contextlib.contextmanager
def _closing(handle: int) -> Iterator[int]:
    try:
        yield handle
    finally:
        os.close(handle)


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if not path or len(path) > _MAX_PATH or len(parts) > _MAX_PARTS or not _is_text(path) or not path.isprintable():
        raise Refused(f"{path[:80]!r} is no path here; use a short relative one, such as 'notes/a.txt'")
    for part in parts:
        if part in ("", ".", "..") or len(part.encode()) > 255:
            raise Refused(f"{path[:80]!r} is no path here; use plain parts below the workspace, without '.' or '..'")
    return parts


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _refuse_kind(kind: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(kind.st_mode):
        raise Refused(f"{path!r} is no regular file; links, folders, fifos, sockets and devices are refused")
    if kind.st_nlink > 1:
        raise Refused(f"{path!r} has {kind.st_nlink} names (hard links), so it may lie outside as well; copy it in")


def _refuse_all_but_files(folder: int, name: str, path: str) -> bool:
    try:
        kind = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    _refuse_kind(kind, path)
    return True
