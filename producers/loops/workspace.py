"""The one folder that a loop may touch.

Every path is walked from the folder's own descriptor, component by component, without following a link: what a step cannot
name it cannot reach, even if somebody swaps a folder for a link meanwhile. Writes appear whole or not at all.
"""

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from morphogen.schemas import sound

from .errors import ToolRefused, WorkspaceError

RESERVED = ".morphogen"
"""A folder of the workspace that steps may read and never write: it holds the policy and the exports."""
_PIECE = 1 << 20
_LONGEST = 4095  # bytes of a path from the root of the file system on, of which other programs have to open it whole
_SHOWN = 100  # characters of a path in a line
_OURS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE})
"""What is wrong with the machine, whatever a step named."""
_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "name another workspace",
    errno.EACCES: "check the permissions",
}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Policy:
    """What a workspace allows beyond itself: hosts for `tool.http` (`name` or `name:port`), and environment variables."""

    hosts: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()


class Workspace:
    """A folder, held open. Raises WorkspaceError where it cannot be made, read or written, ToolRefused for bad paths."""

    def __init__(self, root: Path, fd: int | None = None) -> None:
        """Hold the folder at `root`, or the one that `fd` is open at."""
        self.root = root
        try:
            self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if fd is None else fd
        except OSError as error:
            raise WorkspaceError(f"the workspace {root} cannot be opened: {error.strerror}") from error
        self.policy = _policy(root)

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, make: bool = True) -> "Workspace":
        """Open the folder; where there is none, make it, or without `make` stand for an empty one that nothing can be put into."""
        try:
            root = Path(path).expanduser().absolute()
            if make:
                root.mkdir(parents=True, exist_ok=True)
            root = root.resolve()
            if not root.is_dir() and root.exists():
                raise FileExistsError
            return cls(root, None if make or root.is_dir() else _empty())
        except FileExistsError:
            raise WorkspaceError(f"the workspace {path} is a file: name a folder with --workspace") from None
        except (OSError, ValueError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or error
            raise WorkspaceError(f"the workspace {path} cannot be made: {why}; name another") from error

    def close(self) -> None:
        """Let go of the folder."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, name: str, max_bytes: int | None = None) -> bytes:
        """Return a file's bytes. Raises FileNotFoundError, ToolRefused where it is larger than `max_bytes` or no file."""
        with self._opened(name) as fd:
            if not _is_file(fd):
                raise ToolRefused(f"{name} is not a file")
            size = os.fstat(fd).st_size
            if max_bytes is not None and size > max_bytes:
                raise ToolRefused(f"{name} has {size:,} bytes, and at most {max_bytes:,} are read: raise max_bytes")
            with open(fd, "rb", closefd=False) as file:
                return file.read()

    def exists(self, name: str) -> bool:
        """Tell whether a file or folder is there."""
        try:
            with self._opened(name):
                return True
        except (FileNotFoundError, NotADirectoryError):
            return False

    def sha256(self, name: str) -> str | None:
        """Return the hash of a file's bytes, None where there is none."""
        try:
            with self._opened(name) as fd:
                if not _is_file(fd):
                    return None
                with open(fd, "rb", closefd=False) as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, data: bytes) -> None:
        """Put a file there, whole or not at all, on disk when this returns; folders on the way are made."""
        parts = self._parts(name)
        if not parts:
            raise ToolRefused("a file needs a name")
        if parts[0] == RESERVED:
            raise ToolRefused(f"{name}: steps do not write into {RESERVED}, which holds the workspace's policy")
        self._write(parts, data)

    def export(self, name: str, data: bytes) -> Path:
        """Put one of our own files there; return its path. Raises WorkspaceError whatever is in its way."""
        try:
            self._write(self._parts(name), data)
        except ToolRefused as error:
            raise WorkspaceError(f"{self.root}/{name} cannot be written: {error}; check the workspace") from error
        return self.root / name

    def folder(self, name: str) -> Path:
        """Return the path of a folder inside, for a process to start in. Raises ToolRefused where it is none."""
        parts = self._parts(name) if name not in {"", "."} else []
        with self._refusing(name, "entered"), self._walked(parts, make=False):
            return self.root.joinpath(*parts)

    def _parts(self, name: str) -> list[str]:
        if not isinstance(name, str) or not name or "\0" in name:
            raise ToolRefused("a path must be text and not empty")
        try:
            size = len(os.fsencode(self.root / name))
        except UnicodeEncodeError:
            raise ToolRefused(f"the path {_short(sound(name))} holds what is no character") from None
        if size > _LONGEST:
            raise ToolRefused(f"the path {_short(name)} is too long: no program could open it")
        path = PurePosixPath(name)
        if path.is_absolute():
            try:
                path = path.relative_to(self.root)
            except ValueError:
                raise ToolRefused(f"{name} lies outside the workspace {self.root}: use a path inside") from None
        if ".." in path.parts:
            raise ToolRefused(f"{name} leads upwards: paths stay inside the workspace {self.root}")
        return list(path.parts)

    @contextlib.contextmanager
    def _refusing(self, name: str, done: str) -> Iterator[None]:
        """Raise ToolRefused for what the system says of a path and WorkspaceError for what it says of the machine.

        That there is no such file stays FileNotFoundError or NotADirectoryError.
        """
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError as error:
            if error.errno in _OURS:
                raise WorkspaceError(f"{self.root}/{name} cannot be {done}: {error.strerror}") from error
            raise ToolRefused(f"{_short(name)} cannot be {done}: {error.strerror}") from error

    @contextlib.contextmanager
    def _walked(self, parts: list[str], *, make: bool) -> Iterator[int]:
        """Open the folder at `parts` and yield its descriptor."""
        fd = os.dup(self._fd)
        try:
            for depth, part in enumerate(parts):
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o777, dir_fd=fd)
                try:
                    deeper = os.open(part, _DIRECTORY, dir_fd=fd)
                except OSError as error:
                    _refuse_link(error, fd, part, "/".join(parts[: depth + 1]))
                    raise
                os.close(fd)
                fd = deeper
            yield fd
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        parts = self._parts(name)
        with self._refusing(name, "read"):
            with self._walked(parts[:-1], make=False) as folder:
                last = parts[-1] if parts else "."
                try:
                    fd = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
                except OSError as error:
                    _refuse_link(error, folder, last, name)
                    raise
            try:
                yield fd
            finally:
                os.close(fd)

    def _write(self, parts: list[str], data: bytes) -> None:
        name = "/".join(parts)
        try:
            with self._walked(parts[:-1], make=True) as folder:
                _refuse_what_is_no_file(folder, parts[-1], name)
                part = f".{parts[-1][:100]}.part"
                fd = _scratch(folder, part)
                try:
                    view = memoryview(data)
                    while view:
                        view = view[os.write(fd, view[:_PIECE]) :]
                    os.fsync(fd)
                    _put(fd, folder, part, parts[-1])
                    os.fsync(folder)
                except BaseException:
                    with contextlib.suppress(OSError):
                        os.unlink(part, dir_fd=folder)
                    raise
                finally:
                    os.close(fd)
        except OSError as error:
            if error.errno not in {*_OURS, errno.EACCES, errno.EPERM}:
                raise ToolRefused(f"{_short(name)} cannot be written: {error.strerror}") from error
            hint = _ADVICE.get(error.errno, "check the workspace")
            raise WorkspaceError(f"{self.root}/{name} cannot be written: {error.strerror}; {hint}") from error


def _empty() -> int:
    """Open an empty folder that is nowhere any more."""
    with tempfile.TemporaryDirectory() as path:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _is_file(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."


def _scratch(folder: int, part: str) -> int:
    """Open a file without a name, of which a killed process leaves nothing; one named `part` where that cannot be."""
    try:
        return os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o666, dir_fd=folder)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}:
            raise
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part, dir_fd=folder)
    return os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)


def _put(fd: int, folder: int, part: str, name: str) -> None:
    """Give a written file its name, in place of what has it now. `part` is whole whenever it is seen."""
    if os.fstat(fd).st_nlink == 0:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=folder)
        os.link(f"/proc/self/fd/{fd}", part, dst_dir_fd=folder, follow_symlinks=True)
    os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)


def _refuse_link(error: OSError, folder: int, part: str, name: str) -> None:
    if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
        return
    with contextlib.suppress(OSError):
        if stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode):
            raise ToolRefused(f"{name} is a symbolic link: steps do not follow links") from None


def _refuse_what_is_no_file(folder: int, part: str, name: str) -> None:
    try:
        mode = os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise ToolRefused(f"{name} is a symbolic link: steps do not follow links")
    if not stat.S_ISREG(mode):
        raise ToolRefused(f"{name} is not a file")


def _policy(root: Path) -> Policy:
    path = root / RESERVED / "policy.toml"
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return Policy()
    except (OSError, ValueError) as error:
        raise WorkspaceError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    known: dict[str, tuple[str, ...]] = {}
    for key, value in values.items():
        listed = isinstance(value, list) and all(isinstance(one, str) for one in value)
        if key not in {"hosts", "environment"} or not listed:
            raise WorkspaceError(f"{path}: {key} is not understood; write hosts = [...] and environment = [...]")
        known[key] = tuple(value)
    return Policy(**known)
