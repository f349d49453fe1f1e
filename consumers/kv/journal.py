"""The journal of a session: a file of records, each on disk before anybody hears of it, owned by one process.

    <folder>/journal    records: length and CRC-32 (little-endian uint32 each), then the record
    <folder>/<state>.kv KV states, as the records name them

A kill leaves whole records and at most a torn last one, which the next owner cuts off. The file is locked while it is
open: of two processes that want a session one is told who has it. One that rests on a desk is not open, and opened when
it is used again. Before each use it is seen to be the file that was left here: what is written to one that was deleted
would be lost.
"""

import contextlib
import errno
import fcntl
import os
import struct
import weakref
import zlib
from pathlib import Path

import msgspec

from .conversation import MAX_TEXT, Conversation, Entry, Got, decode_entry, encode_entry
from .desk import Desk
from .errors import SessionBusy, SessionError, SessionLost

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

    A record that was torn by a kill ends it. Raises SessionLost where the bytes are no journal, or a whole record is damaged.
    """
    view = memoryview(data)
    if bytes(view[: len(MAGIC)]) != MAGIC:
        raise SessionLost(f"{name} is not the journal of a session, or of another version: give the folder of one")
    conversation, at = Conversation(), len(MAGIC)
    while at + _HEAD.size <= len(view):
        length, crc = _HEAD.unpack_from(view, at)
        end = at + _HEAD.size + length
        if end > len(view):
            if length > _LONGEST:
                raise SessionLost(f"{name} is damaged at byte {at}: a record of {length} bytes; restore it or drop it")
            break
        body = view[at + _HEAD.size : end]
        if zlib.crc32(body) != crc:
            if end == len(view):
                break  # the last one: torn
            raise SessionLost(f"{name} is damaged at byte {at}: a record has another checksum; restore it or drop it")
        try:
            conversation.take(decode_entry(body))
        except (msgspec.MsgspecError, ValueError) as error:
            raise SessionLost(f"{name} cannot be read at byte {at}: {error}; restore it or drop it") from error
        at = end
    return conversation, at


_open: "weakref.WeakSet[Journal]" = weakref.WeakSet()


class Journal:
    """An open journal; `conversation` is what it says. Make it with `Journal.open`, and close it."""

    def __init__(
        self, folder: Path, fd: int, conversation: Conversation, *, wrote: int, desk: Desk | None = None
    ) -> None:
        self.folder = folder
        self.conversation = conversation
        self.size = wrote
        """Bytes of the file that are whole."""
        self._fd = fd  # below zero while it rests, and once it is closed
        self._file = os.fstat(fd)
        self._gone: str | None = None  # why it is not to be used any more
        self._desk = desk
        _open.add(self)
        if desk is not None:
            desk.use(self)

    @classmethod
    def open(cls, folder: Path, *, create: bool = True, desk: Desk | None = None) -> "Journal":
        """Open and lock the journal in a folder, and cut off what a kill left half written.

        On a `desk` it is open, and locked, only while it is among those that were used last. Raises SessionBusy where another
        process has it, SessionError where there is none or it cannot be opened, SessionLost where it cannot be read.
        """
        path = folder / NAME
        try:
            if create:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = _locked(folder, os.O_CREAT if create else 0)
            try:
                if not os.path.samestat(os.fstat(fd), os.stat(path)):
                    raise SessionBusy(f"session {folder.name} was dropped by another process just now: begin it again")
                conversation, whole = _folded(fd, path)
                made = cls(folder, fd, conversation, wrote=whole, desk=desk)
            except BaseException:
                os.close(fd)
                raise
        except FileNotFoundError as error:
            raise SessionError(f"there is no session in {folder}") from error
        except OSError as error:
            raise _not_opened(folder, error) from error
        with contextlib.suppress(OSError):
            (folder / "owner").write_text(str(os.getpid()))
        return made

    def append(self, *entries: Entry) -> None:
        """Write records, and fold them in: once this returns, a kill loses none of them.

        Raises ValueError for records that cannot follow what is there, SessionError where they cannot be written, SessionLost
        where the file is not there any more; nothing of them is in the journal then.
        """
        fd = self._awake()
        try:
            self._append(fd, entries)
        except BaseException as error:
            if not isinstance(error, Exception):  # interrupted between the file and what is made of it: the file counts
                self.conversation, self.size = _folded(fd, self.folder / NAME)
            raise

    def sync(self) -> None:
        """Have the disk hold what was written, so that a loss of power does not lose it either; nothing once it is closed."""
        if self.closed:
            return
        fd = self._awake()
        try:
            os.fdatasync(fd)
        except OSError as error:
            raise SessionError(f"the disk does not take the journal in {self.folder}: {error.strerror}") from error

    def whole(self) -> bytes:
        """Return the whole journal."""
        return _read(self._awake())

    def rest(self) -> None:
        """Give its descriptor up until it is used again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Let another process have it; harmless when done twice."""
        self._end("is closed: open it again")

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._gone is not None

    def leave(self) -> None:
        """Let go of it in a process that was forked: lock and place in the file are those of the one that opened it."""
        self._end("belongs to the process that this one was forked from: open it here once that one has closed it")

    def _end(self, gone: str) -> None:
        self._gone = self._gone or gone
        self.rest()

    def _awake(self) -> int:
        """Return its descriptor, opened again if need be, with the file as it was left here."""
        if self._gone is not None:
            raise SessionError(f"session {self.folder.name} {self._gone}")
        if self._desk is not None:
            self._desk.use(self)
        try:
            if self._fd < 0:
                self._fd = _locked(self.folder)
                os.lseek(self._fd, self.size, os.SEEK_SET)
            now = os.stat(os.path.join(self.folder, NAME))  # for every token: quicker than a Path
            ours = os.path.samestat(now, self._file) and now.st_size == self.size
        except FileNotFoundError:
            ours = False
        except OSError as error:
            raise _not_opened(self.folder, error) from error
        if not ours:
            self.rest()  # it may be another one's file
            raise SessionLost(
                f"the journal of session {self.folder.name} was deleted, replaced or changed in {self.folder}: put it back "
                "and open the session anew (of a worker: start that again), or drop it"
            )
        return self._fd

    def _append(self, fd: int, entries: tuple[Entry, ...]) -> None:
        match entries:
            case (Got(),):  # the one that is written for every token
                if self.conversation.reply is None:
                    raise ValueError("a token belongs to no reply")
                self._write(fd, pack(entries[0]))
                self.conversation.take(entries[0])
            case _:
                trial = self.conversation.copy()
                for entry in entries:
                    trial.take(entry)
                self._write(fd, b"".join(pack(entry) for entry in entries))
                self.conversation = trial

    def _write(self, fd: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.write(fd, view)
                view = view[written:]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, self.size)  # what was half written must not stand before the next record
                os.lseek(fd, self.size, os.SEEK_SET)
            raise SessionError(f"cannot write to the journal in {self.folder}: {error.strerror}") from error
        self.size += len(data)


def _leave() -> None:
    for journal in list(_open):
        journal.leave()


os.register_at_fork(after_in_child=_leave)


def _locked(folder: Path, flags: int = 0) -> int:
    """Open and lock the journal in a folder. Raises OSError, SessionBusy where another process has it."""
    fd = os.open(folder / NAME, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise SessionBusy(
            f"session {folder.name} is in use{_owner(folder)}: end that one first, or begin a session of another name"
        ) from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _not_opened(folder: Path, error: OSError) -> SessionError:
    advice = "; raise `ulimit -n`" if error.errno == errno.EMFILE else ""
    return SessionError(f"the journal in {folder} cannot be opened: {error.strerror}{advice}")


def _folded(fd: int, path: Path) -> tuple[Conversation, int]:
    """Return what an open journal says and the bytes of it that are whole; the next record is written behind them."""
    data = _read(fd)
    if len(data) < len(MAGIC) and MAGIC.startswith(data):  # new, or killed before its first byte
        os.ftruncate(fd, 0)
        os.pwrite(fd, MAGIC, 0)
        data = MAGIC
    conversation, whole = unpack(data, str(path))
    if whole < len(data):
        os.ftruncate(fd, whole)
    os.lseek(fd, whole, os.SEEK_SET)
    return conversation, whole


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
