"""Large things by the hash of their bytes: stored once, streamed, verified on the way out.

A blob is its chunks, `morphogen.blob.<sha256>.<index>-<crc32>`, and, stored last, a manifest
`morphogen.blob.<sha256>.manifest` that lists them: without one there is no blob. Each subject takes one message, so
two who upload the same at once store it once, and an upload that was cut off goes on where it ended.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from .aside import in_thread
from .errors import BlobDamaged, BlobMissing, Disconnected, JetStreamApiError, NoBroker, RequestTimeout
from .place import is_plain, replacing
from .reader import read
from .streams import BLOBS, stored_message, stream_info

if TYPE_CHECKING:
    from .connection import Connection
    from .message import Message

__all__ = [
    "CHUNK",
    "BlobRef",
    "chunk_names",
    "clean",
    "delete",
    "exists",
    "get_bytes",
    "get_chunk",
    "get_chunks",
    "get_file",
    "put_bytes",
    "put_file",
    "size",
]

CHUNK = 512 * 1024  # bytes
_WINDOW = 12  # chunks sent and not yet acknowledged
_PATIENCE = 60.0  # seconds that a chunk waits for a lost broker
_TAKEN = 10071  # the subject has its message already
_PAGE = 100_000  # subjects in one answer of the broker
_PREFIX = "morphogen.blob"
_MANIFEST = "manifest"

Progress = Callable[[int, int], None]


class BlobRef(NamedTuple):
    """How to find a blob again, and how large it is in bytes."""

    sha256: str
    size: int


class _Manifest(msgspec.Struct, frozen=True):
    size: int
    chunks: list[str]


class _Source(Protocol):
    """Bytes that can be read from the start more than once."""

    def read(self) -> Iterator[bytes]: ...


class _Bytes:
    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data).cast("B")

    def read(self) -> Iterator[bytes]:
        for start in range(0, len(self._view), CHUNK):
            yield bytes(self._view[start : start + CHUNK])


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


class _Kept:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            yield chunk


async def put_bytes(conn: "Connection", data: bytes | bytearray | memoryview) -> str:
    """Store bytes and return their sha256; what is stored already is not sent again."""
    return (await _put(conn, _Bytes(data), None)).sha256


async def put_file(conn: "Connection", path: str | Path, progress: Progress | None = None) -> BlobRef:
    """Store a file; `progress` is told the bytes handed over so far and their total.

    A pipe is read to its end first. Raises BlobDamaged where the file changes meanwhile, OSError where it is a device
    that may have no end.
    """
    source = Path(path)
    if source.is_file():
        return await _put(conn, _File(source), progress)
    with tempfile.TemporaryFile() as kept:  # what can be read only once is needed twice
        await in_thread(lambda: _take(source, kept))
        return await _put(conn, _Kept(kept), progress)


async def get_bytes(conn: "Connection", sha256: str) -> bytes:
    """Return a blob. Raises BlobMissing, or BlobDamaged where its bytes do not have its hash."""
    return b"".join([chunk async for chunk in get_chunks(conn, sha256)])


async def get_file(conn: "Connection", sha256: str, path: str | Path, progress: Progress | None = None) -> int:
    """Write a blob to a file, which appears whole and verified or not at all; return its size in bytes.

    A link stays one. A pipe or a device is written to, as soon as all is verified.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "It is a folder, name a file in it", str(target))
    manifest = await _manifest(conn, sha256)
    if not is_plain(target):
        with tempfile.TemporaryFile() as kept:
            written = await _write(conn, sha256, manifest, kept, progress)
            kept.seek(0)
            await in_thread(lambda: _give(kept, target))
        return written
    with replacing(target) as file:
        written = await _write(conn, sha256, manifest, file, progress)
        file.flush()
        await in_thread(lambda: os.fsync(file.fileno()))  # which may take long, and not on the loop
    return written


async def get_chunks(conn: "Connection", sha256: str) -> AsyncGenerator[bytes, None]:
    """Yield a blob piece by piece. Raises BlobDamaged after the last piece where they do not have its hash."""
    async with contextlib.aclosing(_verified(conn, sha256, await _manifest(conn, sha256))) as chunks:
        async for chunk in chunks:
            yield chunk


async def exists(conn: "Connection", sha256: str) -> bool:
    """Tell whether a whole blob of that hash is stored."""
    return await conn.last_message(BLOBS, _subject(sha256, _MANIFEST)) is not None


async def size(conn: "Connection", sha256: str) -> int:
    """Return a blob's size in bytes. Raises BlobMissing."""
    return (await _manifest(conn, sha256)).size


async def chunk_names(conn: "Connection", sha256: str) -> tuple[int, list[str]]:
    """Return a blob's size in bytes and the names of its chunks, `<index>-<crc32>`, in order. Raises BlobMissing."""
    manifest = await _manifest(conn, sha256)
    return manifest.size, list(manifest.chunks)


async def get_chunk(conn: "Connection", sha256: str, name: str) -> bytes:
    """Return one chunk of a blob. Raises BlobDamaged where it is gone, or its bytes are not what its name says."""
    message = await _kept(conn, sha256, name)
    if message is None or _name(int(name.partition("-")[0]), message.data) != name:
        raise BlobDamaged(f"blob {sha256} lacks chunk {name}: store it again from its source")
    return message.data


async def delete(conn: "Connection", sha256: str) -> bool:
    """Take a blob away; return whether there was one. Not while somebody may be storing the same bytes."""
    present = await exists(conn, sha256)
    await _purge(conn, _subject(sha256, _MANIFEST))  # first, so that it is never visible without its chunks
    await _purge(conn, _subject(sha256, "*"))
    return present


async def clean(conn: "Connection", *, older_than: float = 24 * 3600.0) -> int:
    """Take away what uploads left that were cut off more than `older_than` seconds ago; return how many.

    It is the broker's clock that tells.
    """
    names: dict[str, set[str]] = {}
    for subject in await _subjects(conn, f"{_PREFIX}.>"):
        sha256, _, name = subject.removeprefix(f"{_PREFIX}.").partition(".")
        names.setdefault(sha256, set()).add(name)
    removed, now = 0, (await stream_info(conn, BLOBS)).now
    for sha256 in [sha256 for sha256, held in names.items() if _MANIFEST not in held]:
        newest = await conn.last_message(BLOBS, _subject(sha256, "*"))
        if newest is not None and newest.stored_ns < now - int(older_than * 1e9):
            await _purge(conn, _subject(sha256, "*"))
            removed += 1
    return removed


async def _put(conn: "Connection", source: _Source, progress: Progress | None) -> BlobRef:
    sha256, names, total = await in_thread(lambda: _examine(source))
    ref = BlobRef(sha256, total)
    if await exists(conn, sha256):
        if progress is not None:
            progress(total, total)
        return ref
    while True:
        present = {subject.rpartition(".")[2] for subject in await _subjects(conn, _subject(sha256, "*"))}
        await _send(conn, source, sha256, names, present=present, total=total, progress=progress)
        await _store(conn, _subject(sha256, _MANIFEST), msgspec.msgpack.encode(_Manifest(total, names)))
        present = {subject.rpartition(".")[2] for subject in await _subjects(conn, _subject(sha256, "*"))}
        if present.issuperset(names):
            return ref
        # Somebody deleted the same blob meanwhile: put back what is gone.


async def _send(
    conn: "Connection",
    source: _Source,
    sha256: str,
    names: list[str],
    *,
    present: set[str],
    total: int,
    progress: Progress | None,
) -> None:
    """Send the chunks that are not there, some at a time, in order."""
    flying: set[asyncio.Task[None]] = set()
    done = 0
    try:
        for index, chunk in enumerate(source.read()):
            if index >= len(names) or _name(index, chunk) != names[index]:
                raise BlobDamaged(f"the source of blob {sha256} changed while it was being stored: store it again")
            if names[index] not in present:
                if len(flying) >= _WINDOW:
                    landed, flying = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
                    for task in landed:
                        task.result()
                flying.add(asyncio.create_task(_store(conn, _subject(sha256, names[index]), chunk)))
            done += len(chunk)
            if progress is not None:
                progress(done, total)
        if done != total:
            raise BlobDamaged(f"the source of blob {sha256} changed while it was being stored: store it again")
        await asyncio.gather(*flying)
    finally:
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)


async def _store(conn: "Connection", subject: str, data: bytes) -> None:
    """Store a message as the only one of its subject, over a lost broker too; fine if it is there already."""
    headers = {"Nats-Expected-Last-Subject-Sequence": "0"}
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            await conn.publish_ack(subject, data, headers, 15.0)
        except JetStreamApiError as error:
            if error.err_code != _TAKEN:
                raise
        except (Disconnected, RequestTimeout):
            if time.monotonic() > deadline:
                raise
            with contextlib.suppress(NoBroker):
                await asyncio.sleep(0.05)
                await conn.wait_connected(max(0.1, deadline - time.monotonic()))
            continue
        return


async def _verified(conn: "Connection", sha256: str, manifest: _Manifest) -> AsyncGenerator[bytes, None]:
    digest = hashlib.sha256()
    wanted = manifest.chunks
    position = 0
    async with contextlib.aclosing(read(conn, stream="blobs", subjects=[_subject(sha256, "*")])) as batches:
        async for batch in batches:
            for message in batch:
                name = message.subject.rpartition(".")[2]
                if position == len(wanted) or name != wanted[position]:
                    continue  # out of order, the manifest, or from a source that changed while it was read
                digest.update(message.data)
                position += 1
                yield message.data
            if position == len(wanted):
                break
    for name in wanted[position:]:  # stored out of order, which takes a store that failed for a moment
        late = await _kept(conn, sha256, name)
        if late is None:
            raise BlobDamaged(f"blob {sha256} lacks chunk {name}: store it again from its source")
        digest.update(late.data)
        yield late.data
    if digest.hexdigest() != sha256:
        raise BlobDamaged(f"the bytes of blob {sha256} have another hash: delete it and store it again from its source")


async def _write(
    conn: "Connection", sha256: str, manifest: _Manifest, file: IO[bytes], progress: Progress | None
) -> int:
    """Write all verified chunks of a blob; return their bytes."""
    written = 0
    async with contextlib.aclosing(_verified(conn, sha256, manifest)) as chunks:
        async for chunk in chunks:
            file.write(chunk)
            written += len(chunk)
            if progress is not None:
                progress(written, manifest.size)
    return written


def _take(path: Path, into: IO[bytes]) -> None:
    with path.open("rb") as file:
        if path.is_char_device() and not (file.isatty() or path.samefile(os.devnull)):
            raise OSError(errno.EINVAL, "It is a device, whose bytes may have no end", str(path))
        shutil.copyfileobj(file, into, CHUNK)


def _give(file: IO[bytes], path: Path) -> None:
    with path.open("ab") as into:
        shutil.copyfileobj(file, into, CHUNK)


async def _manifest(conn: "Connection", sha256: str) -> _Manifest:
    message = await _kept(conn, sha256, _MANIFEST)
    if message is None:
        raise BlobMissing(f"no blob {sha256} is stored at this broker")
    try:
        return msgspec.msgpack.decode(message.data, type=_Manifest)
    except msgspec.MsgspecError as error:
        raise BlobDamaged(f"blob {sha256} has a damaged manifest: delete it and store it again") from error


async def _kept(conn: "Connection", sha256: str, name: str) -> "Message | None":
    """Return a chunk or the manifest; the leader has the last word, for a copy that is behind says that there is none."""
    subject = _subject(sha256, name)
    return await conn.last_message(BLOBS, subject) or await stored_message(conn, BLOBS, last_by_subj=subject)


async def _subjects(conn: "Connection", pattern: str) -> list[str]:
    """Return the subjects that hold something."""
    found: list[str] = []
    while True:
        answer = await conn.js(f"STREAM.INFO.{BLOBS}", {"subjects_filter": pattern, "offset": len(found)})
        page = answer["state"].get("subjects") or {}
        found.extend(page)
        if len(page) < _PAGE:
            return found


async def _purge(conn: "Connection", pattern: str) -> None:
    await conn.js(f"STREAM.PURGE.{BLOBS}", {"filter": pattern}, timeout=60.0)


def _examine(source: _Source) -> tuple[str, list[str], int]:
    """Return the hash of all bytes, the names of the chunks, and the size."""
    digest, names, total = hashlib.sha256(), [], 0
    for index, chunk in enumerate(source.read()):
        digest.update(chunk)
        names.append(_name(index, chunk))
        total += len(chunk)
    return digest.hexdigest(), names, total


def _name(index: int, chunk: bytes) -> str:
    return f"{index}-{zlib.crc32(chunk):08x}"


def _subject(sha256: str, name: str) -> str:
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise BlobMissing(f"{sha256[:80]!r} is not the sha256 of a blob: it has 64 hexadecimal digits")
    return f"{_PREFIX}.{sha256}.{name}"
