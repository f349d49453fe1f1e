"""Where replayed events go: a stream of text or msgpack, a file, the bus. (`projection` has the fourth.)

A sink is begun when it is known what there is to come, and gets one frame after the other. A file appears under its
name only when the replay is complete; one that was interrupted is closed properly and named after the last sequence in
it; one that cannot be written is taken away.
"""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from morphogen.bus.archive.rows import DICTIONARY, SCHEMA, STATISTICS, Row, row, table
from morphogen.bus.archive.writer import WINDOW_BYTES, WINDOW_ROWS
from morphogen.bus.connection import Connection
from morphogen.bus.emit import publish_once
from morphogen.bus.reader import Message
from morphogen.bus.streams import REPLAY
from morphogen.schemas import Frame, token

from .errors import SinkFailed
from .lines import lines, unreadable_line


class Sink(Protocol):
    """What a replay writes into."""

    replay: str | None
    """The name that every frame has to carry; None leaves them as they are."""

    @property
    def whole(self) -> bool:
        """Whether frames that refer to blobs come with the bodies instead, where there is a broker."""
        ...

    async def begin(self, position: int) -> None:
        """Get ready for what comes after sequence `position`."""

    async def put(self, message: Message, frame: Frame | None, error: str | None) -> None:
        """Take a message of the log, with its frame, or, where it is none, the reason."""

    async def close(self, position: int, complete: bool) -> None:
        """Finish, after everything up to sequence `position` was put; `complete` when that is all there is.

        Whatever failed, this is called once, also where the sink was not begun.
        """


class StreamSink:
    """Lines of JSON into a text stream, or, with `raw`, the frames as they are into a binary one."""

    replay: str | None = None

    def __init__(self, stream: IO[Any], *, raw: bool = False) -> None:
        self.whole = not raw
        self._stream = stream
        self._raw = raw

    async def begin(self, position: int) -> None:
        """Do nothing: the stream is open."""

    async def put(self, message: Message, frame: Frame | None, error: str | None) -> None:
        """Write the events of a message."""
        with _told("the output"):
            if self._raw:
                self._stream.write(message.data)
                return
            for line in _lines(message, frame, error):
                self._stream.write(line + "\n")

    async def close(self, position: int, complete: bool) -> None:
        """Hand over what is buffered; the stream stays open, for it is not ours."""
        with _told("the output"):
            self._stream.flush()


class FileSink:
    """A new file: `.jsonl` holds JSON, `.parquet` rows as the archive has, `.frames` or `.msgpack` frames as they are.

    `path` is its name; once `saved`, the one that it got. Raises SinkFailed where it exists already, or its ending is
    another one.
    """

    replay: str | None = None

    def __init__(self, path: Path) -> None:
        if path.suffix not in _WRITERS:
            raise SinkFailed(f"{path} has no ending that names a form: write {', '.join(_WRITERS)}, or .duckdb to fold")
        self.path = path
        self.whole = path.suffix == ".jsonl"
        self.saved = False
        self._part = path.with_name(path.name + ".part")
        self._lock: IO[Any] | None = None
        self._writer: Any = None
        self._put = 0
        self._spoiled = False
        self._demand_free()

    async def begin(self, position: int) -> None:
        """Open the file, under another name. Raises SinkFailed where that cannot be, or another replay writes it."""
        with _told(self.path):
            self._lock = self._part.open("ab")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.close()
                raise SinkFailed(f"another replay is writing {self.path}: name another file") from None
            except OSError:  # a file system without locks: then nobody can be kept out
                pass
            try:
                self._demand_free()  # the other one may just be done
                self._writer = _WRITERS[self.path.suffix](self._part)
            except BaseException:
                self._part.unlink(missing_ok=True)
                self._lock.close()
                raise

    async def put(self, message: Message, frame: Frame | None, error: str | None) -> None:
        """Write the events of a message."""
        self._spoiled = True  # until it is written whole
        with _told(self.path):
            self._writer.put(message, frame, error)
        self._spoiled = False
        self._put += 1

    async def close(self, position: int, complete: bool) -> None:
        """Give the file its name; one that is not complete says in it how far it goes, and is none where nothing came."""
        if self._writer is None or self._lock is None:
            return
        try:
            if self._spoiled or not (complete or self._put):
                with contextlib.suppress(OSError, ValueError, pa.ArrowException):
                    self._writer.close()
                return
            with _told(self.path):
                self._writer.close()
                ending = "" if complete else f".upto-{position}"
                self.path = _free(self.path.with_name(f"{self.path.stem}{ending}{self.path.suffix}"))
                self._part.replace(self.path)
                self.saved = True
        finally:
            if not self.saved:
                self._part.unlink(missing_ok=True)
            self._lock.close()

    def _demand_free(self) -> None:
        if self.path.exists():
            raise SinkFailed(f"{self.path} is there already: name another file")


class BusSink:
    """The stream of replays: subjects `morphogen.replay.<replay>.<run>.<family>`, each frame marked as a replay.

    Each message is published once under an id of its own, so that one that is put again (after a lost broker, or a
    resumed replay of the same name) is not stored twice. Messages that are no frames cannot be marked and stay
    behind.
    """

    whole = False

    def __init__(self, conn: Connection, replay: str) -> None:
        self.replay: str | None = replay
        self._conn = conn
        self._prefix = f"morphogen.replay.{token(replay)}"
        self._name = replay

    async def begin(self, position: int) -> None:
        """Do nothing: the stream is there."""

    async def put(self, message: Message, frame: Frame | None, error: str | None) -> None:
        """Publish a frame."""
        if frame is None:
            return
        subject = f"{self._prefix}.{token(frame.run)}.{token(frame.family)}"
        ack = await publish_once(self._conn, subject, message.data, msg_id=f"replay.{self._name}.{message.seq}")
        if ack.stream != REPLAY:
            raise SinkFailed(f"{subject} went into stream {ack.stream} instead of {REPLAY}: check the broker's streams")

    async def close(self, position: int, complete: bool) -> None:
        """Do nothing: every frame was acknowledged."""


class _TextFile:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def put(self, message: Message, frame: Frame | None, error: str | None) -> None:
        for line in _lines(message, frame, error):
            self._file.write(line + "\n")

    def close(self) -> None:
        _sync_and_close(self._file)


class _FrameFile:
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def put(self, message: Message, frame: Frame | None, error: str | None) -> None:
        if frame is not None:
            self._file.write(message.data)

    def close(self) -> None:
        _sync_and_close(self._file)


class _ParquetFile:
    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._rows: list[Row] = []
        self._bytes = 0
        self._writer = pq.ParquetWriter(
            self._file,
            SCHEMA,
            compression="zstd",
            compression_level=1,
            use_dictionary=DICTIONARY,
            write_statistics=STATISTICS,
            write_page_checksum=True,
        )

    def put(self, message: Message, frame: Frame | None, error: str | None) -> None:
        self._rows.append(row(message))
        self._bytes += len(message.data)
        if self._bytes >= WINDOW_BYTES or len(self._rows) >= WINDOW_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()
        _sync_and_close(self._file)

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(table(self._rows))
        self._rows, self._bytes = [], 0


_WRITERS: dict[str, Any] = {
    ".jsonl": _TextFile,
    ".parquet": _ParquetFile,
    ".frames": _FrameFile,
    ".msgpack": _FrameFile,
}


def _lines(message: Message, frame: Frame | None, error: str | None) -> list[str]:
    if frame is not None:
        return list(lines(frame))
    return [unreadable_line(message.seq, message.stored, message.subject, message.data, error or "")]


def _free(path: Path) -> Path:
    """Return a path at which nothing is: this one, or with a number."""
    number, found = 2, path
    while found.exists():
        found, number = path.with_name(f"{path.stem}.{number}{path.suffix}"), number + 1
    return found


def _sync_and_close(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


class _Told(contextlib.AbstractContextManager[None]):
    """Turn a disk's or pipe's error into one line; a reader that left (`| head`) is told apart by BrokenPipeError."""

    def __init__(self, where: object) -> None:
        self._where = where

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise SinkFailed(f"cannot write {self._where}: {error.strerror or error}") from error
        if isinstance(error, pa.ArrowException):
            raise SinkFailed(f"cannot write {self._where}: {error}") from error


def _told(where: object) -> _Told:
    return _Told(where)
