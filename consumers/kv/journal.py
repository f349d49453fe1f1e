"""The journal of a session: a file of records, each on disk before anybody hears of it, owned by one process.

    <folder>/journal    records: length and CRC-32 (little-endian uint32 each), then the record
    <folder>/<state>.kv KV states, as the records name them

A kill leaves whole records and at most a torn last one, which the next owner cuts off. The file is locked while it is
open: of two processes that want a session one is told who has it.
"""

import contextlib
import fcntl
import os
import struct
import weakref
import zlib
from pathlib import Path

import msgspec

from .conversation import MAX_TEXT, Conversation, Entry, Got, decode_entry, encode_entry
from .errors import SessionBusy, SessionError

NAME = "journal"
MAGIC = b"MGSES001"
_HEAD = struct.Struct("<II")
_LONGEST = MAX_TEXT + (1 << 20)  # bytes of a record


def pack(entry: Entry) -> bytes:
    """Return a record as the file holds it. Raises SessionError for one that could not be read again."""
    try:
        body = encode_entry(entry)
    except ValueError as error:
        raise SessionError(f"this cannot be written down: {error}") from error
    if len(body) > _LONGEST:
        raise SessionError(f"a record of {len(body)} bytes is more than a journal takes ({_LONGEST}): say less at once")
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def unpack(data: bytes | memoryview, name: str = "a journal") -> tuple[Conversation, int]:
    """Return what a journal's bytes add up to, and how many of them are whole.

    A record that was torn by a kill ends it. Raises SessionError where the bytes are no journal, or a whole record is damaged.
    """
    view = memoryview(data)
    if bytes(view[: len(MAGIC)]) != MAGIC:
        raise SessionError(f"{name} is not the journal of a session, or of another version: give the folder of one")
    conversation, at = Conversation(), len(MAGIC)
    while at + _HEAD.size <= len(view):
        length, crc = _HEAD.unpack_from(view, at)
        end = at + _HEAD.size + length
        if end > len(view):
            if length > _LONGEST:
                raise SessionError(f"{name} is damaged at byte {at}: a record of {length} bytes; restore it or drop it")
            break
        body = view[at + _HEAD.size : end]
        if zlib.crc32(body) != crc:
            if end == len(view):
                break  # the last one: torn
            raise SessionError(f"{name} is damaged at byte {at}: a record has another checksum; restore it or drop it")
        try:
            conversation.take(decode_entry(body))
        except (msgspec.MsgspecError, ValueError) as error:
            raise SessionError(f"{name} cannot be read at byte {at}: {error}; restore it or drop it") from error
        at = end
    return conversation, at


_open: "weakref.WeakSet[Journal]" = weakref.WeakSet()


class Journal:
    """An open journal; `conversation` is what it says. Make it with `Journal.open`, and close it."""

    def __init__(self, folder: Path, fd: int, conversation: Conversation, *, wrote: int) -> None:
        self.folder = folder
        self.conversation = conversation
        self.size = wrote
        """Bytes of the file that are whole."""
        self._fd = fd
        self._gone = "is closed: open it again"
        _open.add(self)

    @classmethod
    def open(cls, folder: Path, *, create: bool = True) -> "Journal":
        """Open and lock the journal in a folder, and cut off what a kill left half written.

        Raises SessionBusy where another process has it, SessionError where there is none, or none that can be read.
        """
        path = folder / NAME
        try:
            if create:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
        except OSError as error:
            raise SessionError(f"there is no session in {folder}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = _owner(folder)
                raise SessionBusy(
                    f"session {folder.name} is in use{owner}: end that one first, or begin a session of another name"
                ) from None
            if not os.path.samestat(os.fstat(fd), os.stat(path)):
                raise SessionBusy(f"session {folder.name} was dropped by another process just now: begin it again")
            data = _read(fd)
            if len(data) < len(MAGIC) and MAGIC.startswith(data):  # new, or killed before its first byte
                os.ftruncate(fd, 0)
                os.pwrite(fd, MAGIC, 0)
                data = MAGIC
            conversation, whole = unpack(data, str(path))
            if whole < len(data):
                os.ftruncate(fd, whole)
            os.lseek(fd, whole, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        with contextlib.suppress(OSError):
            (folder / "owner").write_text(str(os.getpid()))
        return cls(folder, fd, conversation, wrote=whole)

    def append(self, *entries: Entry) -> None:
        """Write records, and fold them in: once this returns, a kill loses none of them.

        Raises ValueError for records that cannot follow what is there, and writes nothing of them.
        """
        self._check()
        match entries:
            case (Got(),):  # the one that is written for every token
                if self.conversation.reply is None:
                    raise ValueError("a token belongs to no reply")
                self._write(pack(entries[0]))
                self.conversation.take(entries[0])
            case _:
                trial = self.conversation.copy()
                for entry in entries:
                    trial.take(entry)
                self._write(b"".join(pack(entry) for entry in entries))
                self.conversation = trial

    def sync(self) -> None:
        """Have the disk hold what was written, so that a loss of power does not lose it either."""
        if self._fd >= 0:
            os.fdatasync(self._fd)

    def whole(self) -> bytes:
        """Return the whole journal."""
        self._check()
        return _read(self._fd)

    def close(self) -> None:
        """Let another process have it; harmless when done twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._fd < 0

    def leave(self) -> None:
        """Let go of it in a process that was forked: lock and place in the file are those of the one that opened it."""
        if self._fd >= 0:
            self.close()
            self._gone = (
                "belongs to the process that this one was forked from: open it here once that one has closed it"
            )

    def _check(self) -> None:
        if self._fd < 0:
            raise SessionError(f"session {self.folder.name} {self._gone}")

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.write(self._fd, view)
                view = view[written:]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.size)  # what was half written must not stand before the next record
                os.lseek(self._fd, self.size, os.SEEK_SET)
            raise SessionError(f"cannot write to the journal in {self.folder}: {error.strerror}") from error
        self.size += len(data)


def _leave() -> None:
    for journal in list(_open):
        journal.leave()


os.register_at_fork(after_in_child=_leave)


def _read(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    parts: list[bytes] = []
    at = 0
    while at < size:
        part = os.pread(fd, size - at, at)
        if not part:
            break
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _owner(folder: Path) -> str:
    try:
        return f" by process {int((folder / 'owner').read_text())}"
    except (OSError, ValueError):
        return ""
