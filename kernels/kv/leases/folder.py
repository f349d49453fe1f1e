"""A folder of leased segments: the files, and the few steps that change them, each under the folder's lock.

    FOLDER/             0700, ours
      lock              held for microseconds by whoever changes anything
      SEGMENT/          32 hex digits
        part | bytes    0600: being written, or committed
        lease.TOKEN     0600, empty: whose it is, and until when (modification time)
        tainted         the bytes may still be looked at by one whose lease has ended

Every order of steps leaves, wherever a process is killed, something that a reaper can judge: a lease stands before the
bytes it is for, and bytes without a live lease are garbage. Bytes are unlinked and never cut short, so that whoever has
them mapped goes on reading what it mapped.
"""

import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from .errors import LeaseEnded, LeaseError
from .holder import Holder, Liveness, alive, me
from .lease import SEGMENT, Ended, Lease, Segment, ending, plan, read_token
from .lock import locked

LONGEST = 1e8  # seconds: three years
_PREFIX = "lease."
Released = Literal["freed", "held", "already"]


class Reaped(msgspec.Struct, frozen=True):
    """What a reaper found: leases that had ended by themselves, segments removed, and how many live on."""

    ended: tuple[Ended, ...] = ()
    removed: tuple[Segment, ...] = ()
    kept: int = 0

    @property
    def size(self) -> int:
        """The bytes given back."""
        return sum(segment.size for segment in self.removed)


class LeaseFolder:
    """The segments and leases in one folder. Any number of processes of one user may stand on it.

    `durable` makes what is committed outlive its writer: its lease is then KEPT, and the bytes are synced to the disk.
    """

    def __init__(self, path: str | Path, *, durable: bool = False, liveness: Liveness = alive) -> None:
        path = Path(path)
        self.path = Path(os.path.realpath(path.parent)) / path.name  # one name, since the lock goes by it
        self._root = str(self.path)  # a Path is slow to make, and all of this stands before the first token
        self.durable = durable
        self._alive = liveness
        prepare(self.path)

    def create(self, ttl: float) -> tuple[Lease, int]:
        """Begin a segment: return the writer's lease, and a file descriptor for its bytes, which nobody else sees yet.

        Raises OSError where the file system has no room.
        """
        _until(ttl)
        with self._locked():
            ident = secrets.token_hex(16)
            (self.path / ident).mkdir(mode=0o700)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                lease = self._take(ident, me(), ttl)
                return lease, os.open(self.path / ident / "part", flags, 0o600)
            except OSError:
                for path in (self.path / ident).iterdir():
                    path.unlink()
                self._free(ident)
                raise

    def commit(self, lease: Lease) -> Lease:
        """Publish the bytes of a writer's lease; return the lease that they live by from now on. Raises LeaseEnded."""
        with self._locked():
            self._must_hold(lease)
            os.rename(self._part(lease), self.bytes_of(lease.segment))
            if not self.durable:
                return lease
            kept = self._take(
                lease.segment, "kept", 0.0
            )  # only now: a writer killed before leaves nothing that is kept
            os.unlink(self._file(lease))
        for folder in (self.path / lease.segment, self.path):
            _sync(folder)
        return kept

    def grant(self, lease: Lease, ttl: float, *, offer: bool = False) -> Lease:
        """Give another lease on the same bytes, to this process or, as an offer, to whoever comes within `ttl` seconds.

        Raises LeaseEnded where `lease` holds no more: whether a reaper has come by already makes no difference.
        """
        with self._locked():
            self._must_hold(lease, time.time_ns())
            if not self.bytes_of(lease.segment).exists():
                raise LeaseEnded(f"segment {lease.segment} in {self.path} is not committed: its writer is not done")
            return self._take(lease.segment, "offer" if offer else me(), ttl)

    def renew(self, lease: Lease, ttl: float) -> int:
        """Let a lease end `ttl` seconds from now, or when it would, if that is later; return that moment (unix ns).

        One whose time ran out is renewed all the same as long as no reaper came by: nobody has acted upon its end.
        """
        with self._locked():
            self._must_hold(lease)
            until = max(_until(ttl), os.stat(self._file(lease)).st_mtime_ns)
            os.utime(self._file(lease), ns=(until, until))
            return until

    def holds(self, lease: Lease, now: int | None = None) -> bool:
        """Return whether a lease has not ended. Needs no lock."""
        try:
            self._must_hold(lease, time.time_ns() if now is None else now)
        except LeaseEnded:
            return False
        return True

    def must_hold(self, lease: Lease, now: int | None = None) -> None:
        """Raise LeaseEnded, with the reason, where a lease has ended. Needs no lock."""
        self._must_hold(lease, time.time_ns() if now is None else now)

    def release(self, lease: Lease, *, seen: bool = False) -> Released:
        """End a lease; remove the bytes with the last one. A lease that had ended and is gone is told as `already`.

        `seen` says that its holder still looks at the bytes, so that their file must never be written again.
        """
        if not os.path.isdir(f"{self._root}/{lease.segment}"):
            return "already"
        with self._locked():
            try:
                self._end(lease, seen=seen)
            except FileNotFoundError:
                return "already"
            return "held" if self._held(lease.segment) else self._free(lease.segment)

    def recycle(self, lease: Lease, ttl: float) -> Lease | None:
        """End the last lease on bytes and begin a new segment on the same file; None where anyone may still see them.

        Nothing has changed where None is returned. The bytes themselves stay as they were.
        """
        folder = f"{self._root}/{lease.segment}"
        if not os.path.isdir(folder):
            return None
        with self._locked():
            if not os.path.exists(self._file(lease)):
                return None
            found = self._read(lease.segment)
            alone = [held for held, _ in found.leases] == [lease]
            if not alone or found.foreign or found.tainted or found.state != "ready":
                return None
            fresh = self._take(lease.segment, me(), ttl)
            os.unlink(self._file(lease))
            os.rename(f"{folder}/bytes", f"{folder}/part")
            ident = secrets.token_hex(16)  # the old name must not come to mean other bytes
            os.rename(folder, f"{self._root}/{ident}")
            return Lease(ident, fresh.ident, fresh.holder)

    def segments(self) -> tuple[Segment, ...]:
        """Return all segments with their leases, as they are."""
        with self._locked():
            return tuple(self._scan())

    def reap(self, now: int | None = None) -> Reaped:
        """Drop leases that have ended by themselves, and remove segments that nobody holds. `now` in unix nanoseconds."""
        with self._locked():
            found = tuple(self._scan())
            todo = plan(found, time.time_ns() if now is None else now, self._alive)
            for over in todo.ended:
                self._drop(over)
            for segment in todo.remove:
                self._free(segment.ident)
        return Reaped(todo.ended, todo.remove, len(found) - len(todo.remove))

    def bytes_of(self, segment: str) -> Path:
        """Return where the committed bytes of a segment lie."""
        return self.path / segment / "bytes"

    def lease_of(self, segment: str, token: str) -> Lease | None:
        """Return the lease that a token stands for, whether it holds or not; None for what is no token of ours."""
        return read_token(segment, token)

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return _relocked(self.path)

    def _part(self, lease: Lease) -> str:
        return f"{self._root}/{lease.segment}/part"

    def _file(self, lease: Lease) -> str:
        return f"{self._root}/{lease.segment}/{_PREFIX}{lease.token}"

    def _take(self, segment: str, holder: Holder | Literal["offer", "kept"], ttl: float) -> Lease:
        lease = Lease(segment, secrets.token_hex(8), holder)
        path, until = self._file(lease), _until(ttl)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.utime(path, ns=(until, until))
        return lease

    def _must_hold(self, lease: Lease, now: int | None = None) -> None:
        try:
            until = os.stat(self._file(lease)).st_mtime_ns
        except FileNotFoundError:
            raise LeaseEnded(
                f"lease {lease.ident} on segment {lease.segment} in {self.path} has ended: released, or reaped"
            ) from None
        why = None if now is None else ending(lease, until, now, self._alive)
        if why is not None:
            told = "its time ran out" if why == "expired" else "its holder died"
            raise LeaseEnded(f"lease {lease.ident} on segment {lease.segment} in {self.path} has ended: {told}")

    def _held(self, segment: str) -> bool:
        todo = plan([self._read(segment)], time.time_ns(), self._alive)
        for over in todo.ended:
            self._drop(over)
        return not todo.remove

    def _drop(self, over: Ended) -> None:
        # One that lives, or may, can still have the bytes before its eyes.
        with contextlib.suppress(FileNotFoundError):
            self._end(over.lease, seen=over.why == "expired" and isinstance(over.lease.holder, Holder))

    def _end(self, lease: Lease, *, seen: bool) -> None:
        if seen:  # a rename, since a new file might find no room
            os.rename(self._file(lease), f"{self._root}/{lease.segment}/tainted")
        else:
            os.unlink(self._file(lease))

    def _free(self, segment: str) -> Literal["freed"]:
        folder = self.path / segment
        for name in ("part", "bytes", "tainted"):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a file of another version's stays, and its folder with it
            folder.rmdir()
        return "freed"

    def _scan(self) -> Iterator[Segment]:
        with os.scandir(self.path) as entries:
            names = [
                entry.name for entry in entries if SEGMENT.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
            ]
        return (self._read(name) for name in sorted(names))

    def _read(self, segment: str) -> Segment:
        state: Literal["writing", "ready", "empty"] = "empty"
        size, leases, foreign, tainted = 0, [], [], False
        with (
            contextlib.suppress(FileNotFoundError),
            os.scandir(f"{self._root}/{segment}") as entries,
        ):  # removed by hand
            for entry in entries:
                if entry.name in ("part", "bytes"):
                    state, size = "writing" if entry.name == "part" else "ready", entry.stat().st_size
                elif entry.name == "tainted":
                    tainted = True
                elif lease := read_token(segment, entry.name.removeprefix(_PREFIX)):
                    leases.append((lease, entry.stat().st_mtime_ns))
                else:
                    foreign.append(entry.name)
        return Segment(segment, state, size, tuple(leases), tuple(foreign), tainted)


def reap(folder: Path, now: int | None = None, *, liveness: Liveness = alive) -> Reaped:
    """Reap a folder; one that does not exist has nothing to reap. `now` in unix nanoseconds."""
    return LeaseFolder(folder, liveness=liveness).reap(now) if folder.is_dir() else Reaped()


def prepare(folder: Path) -> None:
    """Make a folder that only this user can enter, or raise LeaseError where it is someone else's, or open to others.

    /dev/shm and /tmp are open to everyone: a folder that another user has put there first must not be trusted.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError as error:
        raise LeaseError(f"{folder} cannot be made: {error.strerror}; choose another folder") from error
    if not stat.S_ISDIR(found.st_mode):
        raise LeaseError(f"{folder} is no folder; remove it, or choose another one")
    if found.st_uid != os.geteuid():
        raise LeaseError(f"{folder} belongs to user {found.st_uid}, not to this one; choose another folder")
    if found.st_mode & 0o077:
        raise LeaseError(
            f"{folder} is open to other users (mode {stat.S_IMODE(found.st_mode):04o}); run chmod 700 {folder}"
        )


def _until(ttl: float) -> int:
    if not 0 <= ttl <= LONGEST:
        raise ValueError(f"a time to live of {ttl:g} s: give 0 to {LONGEST:g}")
    return time.time_ns() + int(ttl * 1e9)


@contextlib.contextmanager
def _relocked(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(folder))
        except FileNotFoundError:  # someone has removed the whole folder: begin anew
            prepare(folder)
            stack.enter_context(locked(folder))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise LeaseError(f"{folder} cannot be locked: {error.strerror}") from error
        yield


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
