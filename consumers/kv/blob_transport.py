"""KV states as blobs of the log's broker: for ends that share no host, and as the tier below the disk.

The same interface as the other transports. A state is named by the sha256 of its bytes, so equal ones are stored once;
it travels in chunks, an upload or a download that was cut off goes on where it ended, and what arrives is verified
chunk by chunk and as a whole. A blob has no leases: it stays until `release` takes it away.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import mmap
import os
import secrets
import time
import zlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.bus import blobs
from morphogen.bus.aside import in_thread
from morphogen.bus.errors import BlobDamaged, BlobMissing
from morphogen.kernels.kv.transport import BadRef, Gone, Meta, NoRoom, Released
from morphogen.kernels.kv.transport.ending import EndsByAbort, EndsByClose
from morphogen.schemas.kv import KvRef

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

_WINDOW = 12  # chunks asked for and not yet here
_STALE = 24 * 3600.0  # seconds after which what a download left is given up

Progress = Callable[[int, int], None]


Runner = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine on the loop of the connection, from another thread, and returns its result: `Bus.run`, for one."""


class BlobTransport:
    """Moves KV states through the broker of a connection; `folder` holds what is on its way.

    Its calls block, and come from a thread that is not the connection's own.
    """

    name = "blobs"

    def __init__(
        self, conn: "Connection", run: Runner, folder: str | Path, *, progress: Progress | None = None
    ) -> None:
        self._conn, self._run, self._folder, self._progress = conn, run, Path(folder), progress
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sweep(self._folder, time.time())

    def reserve(self, size: int, /) -> "BlobReservation":
        """Make room for `size` bytes in a file of ours, which is sent by `commit`. Raises NoRoom for a full disk."""
        if size < 1:
            raise ValueError(f"a KV state has at least one byte, not {size}")
        return BlobReservation(self, self._folder, size)

    def put(self, path: str | Path, meta: Meta | None = None) -> KvRef:
        """Store a file that lies on disk already, and return where its bytes are to be had."""
        found: blobs.BlobRef = self._run(blobs.put_file(self._conn, path, self._progress))
        given = meta or Meta()
        return KvRef(
            transport=self.name, place=found.sha256, size=found.size, checksum=given.checksum, details=given.details
        )

    def open(self, ref: KvRef, /) -> "BlobMapped":
        """Fetch the bytes, or what an earlier try had not yet, and map them. Raises Gone, BadRef, or a BusError."""
        if ref.transport != self.name:
            raise BadRef(f"a reference of transport {ref.transport} cannot be opened as a blob")
        if ref.offset < 0 or ref.size < 1:
            raise BadRef(f"blob {ref.place} is referred to by {ref.size} bytes from {ref.offset}: there are none")
        path = self.fetch(ref.place)
        try:
            return BlobMapped(ref, path)
        finally:
            path.unlink(missing_ok=True)  # the mapping keeps the bytes

    def fetch(self, sha256: str) -> Path:
        """Return a file of one's own with the bytes of a blob, verified."""
        try:
            path: Path = self._run(_fetch(self._conn, sha256, self._folder, self._progress))
        except BlobMissing as error:
            raise Gone(str(error)) from error
        return path

    def release(self, ref: KvRef, /) -> Released:
        """Take the blob away from the broker."""
        return "freed" if self._run(blobs.delete(self._conn, ref.place)) else "already"


class BlobReservation(EndsByAbort):
    """Room in a file of ours until it is sent."""

    def __init__(self, transport: BlobTransport, folder: Path, size: int) -> None:
        self._transport = transport
        self.size = size
        self._path: Path | None = folder / f"{os.getpid()}-{secrets.token_hex(4)}.out"
        try:
            with self._path.open("xb+") as file:
                os.posix_fallocate(file.fileno(), 0, size)
                self._map = mmap.mmap(file.fileno(), size)
        except OSError as error:
            self._path.unlink(missing_ok=True)
            raise NoRoom(f"no room for {size} bytes in {folder}: {error.strerror}") from error
        self._view = memoryview(self._map)

    @property
    def buffer(self) -> memoryview:
        """The room itself."""
        return self._view

    def commit(self, meta: Meta | None = None, /) -> KvRef:
        """Send what was written; returns when the broker has all of it."""
        given = meta or Meta()
        used = given.used(self.size)
        path, self._path = self._path, None
        if path is None:
            raise ValueError("this reservation was committed or aborted before")
        try:
            self._let_go()
            if used < self.size:
                os.truncate(path, used)
            return self._transport.put(path, given)
        finally:
            path.unlink(missing_ok=True)

    def abort(self) -> None:
        """Give the room back."""
        path, self._path = self._path, None
        if path is not None:
            self._let_go()
            path.unlink(missing_ok=True)

    def _let_go(self) -> None:
        self._view.release()
        with contextlib.suppress(BufferError):  # whoever still looks at a part of it keeps the mapping alive
            self._map.close()


class BlobMapped(EndsByClose):
    """The bytes of a blob that was fetched."""

    def __init__(self, ref: KvRef, path: Path) -> None:
        self.ref = ref
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if ref.offset + ref.size > size:
                raise BadRef(f"blob {ref.place} has {size} bytes, and {ref.size} from {ref.offset} are asked for")
            self._map = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
        self._view = memoryview(self._map)[ref.offset : ref.offset + ref.size]

    @property
    def buffer(self) -> memoryview:
        """The bytes, read-only."""
        return self._view

    def check(self) -> None:
        """Return: what was fetched is one's own."""

    def close(self) -> None:
        """Let go of the bytes."""
        self._view.release()
        with contextlib.suppress(BufferError):
            self._map.close()


def sweep(folder: Path, now: float, older_than: float = _STALE) -> int:
    """Remove what dead processes left in a folder: files to send, and downloads that nobody took up again."""
    removed = 0
    for path in folder.iterdir():
        with contextlib.suppress(OSError, ValueError):
            abandoned = path.suffix in {".out", ".in"} and not _lives(int(path.name.partition("-")[0]))
            stale = path.suffix == ".part" and path.stat().st_mtime < now - older_than
            if abandoned or stale:
                path.unlink()
                removed += 1
    return removed


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


async def _fetch(conn: "Connection", sha256: str, folder: Path, progress: Progress | None) -> Path:
    """Bring a blob into a file: chunks that an earlier try has written stay, the others are asked for, some at a time."""
    size, names = await blobs.chunk_names(conn, sha256)
    part = folder / f"{sha256}.part"
    with _locked(part, folder / f"{os.getpid()}-{secrets.token_hex(4)}.in") as (file, path):
        here = await in_thread(lambda: _whole_chunks(file, names))
        done = sum(here.values())
        missing = [index for index in range(len(names)) if index not in here]
        room = asyncio.Semaphore(_WINDOW)

        async def bring(index: int) -> None:
            nonlocal done
            async with room:
                data = await blobs.get_chunk(conn, sha256, names[index])
                os.pwrite(file, data, index * blobs.CHUNK)
                done += len(data)
                if progress is not None:
                    progress(done, size)

        async with contextlib.AsyncExitStack() as stack:
            tasks = [asyncio.create_task(bring(index)) for index in missing]
            stack.push_async_callback(_ended, tasks)
            await asyncio.gather(*tasks)
        os.ftruncate(file, size)
        if await in_thread(lambda: _sha256(file)) != sha256:
            path.unlink(missing_ok=True)
            raise BlobDamaged(f"the bytes of blob {sha256} have another hash: delete it and store it again")
        own = path if path.suffix == ".in" else folder / f"{os.getpid()}-{secrets.token_hex(4)}.in"
        path.replace(own)
        return own


async def _ended(tasks: "list[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _locked:  # noqa: N801  used as a function
    """The part file, if nobody else is filling it, else one of our own; open and ours until the end of the block."""

    def __init__(self, part: Path, own: Path) -> None:
        self._part, self._own, self._fd = part, own, -1

    def __enter__(self) -> tuple[int, Path]:
        for path in (self._part, self._own):
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(self._fd), path.stat()):  # else its filler has just finished it
                    return self._fd, path
            os.close(self._fd)
        raise NoRoom(f"no file of one's own can be had at {self._own}")

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _whole_chunks(file: int, names: list[str]) -> dict[int, int]:
    """Return the sizes of the chunks that the file holds already, by their index."""
    size = os.fstat(file).st_size
    found: dict[int, int] = {}
    for index, name in enumerate(names):
        if index * blobs.CHUNK >= size:
            break
        data = os.pread(file, blobs.CHUNK, index * blobs.CHUNK)
        if f"{index}-{zlib.crc32(data):08x}" == name:
            found[index] = len(data)
    return found


def _sha256(file: int) -> str:
    digest, at = hashlib.sha256(), 0
    while data := os.pread(file, 1 << 20, at):
        digest.update(data)
        at += len(data)
    return digest.hexdigest()
