"""An answer as bytes: one Arrow IPC stream, cut into parts of at most 480 KB, and put together again."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .errors import KINDS, SqlError
from .formats import Result
from .protocol import CHUNK, Done, Head, Part, decode_part, encode

if TYPE_CHECKING:
    from .sandbox import Query


class Chunks:
    """The sink of an Arrow stream writer: hands out what was written in pieces of a bounded size."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: Any) -> int:
        """Take some bytes."""
        piece = bytes(data)
        self._pieces.append(piece)
        self._size += len(piece)
        return len(piece)

    def flush(self) -> None:
        """Do nothing; pyarrow asks for it."""

    def full(self) -> Iterator[bytes]:
        """Yield whole pieces and keep the rest."""
        if self._size < CHUNK:
            return
        data = memoryview(b"".join(self._pieces))
        end = len(data) - len(data) % CHUNK
        for start in range(0, end, CHUNK):
            yield bytes(data[start : start + CHUNK])
        rest = bytes(data[end:])
        self._pieces, self._size = [rest], len(rest)

    def rest(self) -> bytes:
        """Return what is left, less than one piece once `full` was called."""
        return b"".join(self._pieces)


def answer_parts(
    query: "Query", chunks: Chunks, position: int, as_of: int | None, stopped: Sequence[str] = ()
) -> Iterator[bytes]:
    """Yield the encoded parts of an open query's answer."""
    started = time.perf_counter()
    head: Head | None = Head(types=query.types, position=position, as_of=as_of, stopped=list(stopped))
    with pa.ipc.new_stream(pa.PythonFile(chunks, "w"), query.schema) as writer:
        for batch in query.batches():
            writer.write_batch(batch)
            for data in chunks.full():
                yield encode(Part(head=head, data=data))
                head = None
    for data in chunks.full():
        yield encode(Part(head=head, data=data))
        head = None
    done = Done(rows=query.rows, truncated=query.truncated, seconds=time.perf_counter() - started)
    yield encode(Part(head=head, data=chunks.rest(), done=done))


class Answer:
    """Collects the parts of one answer; `later` tells that it must be asked for as a stream."""

    def __init__(self) -> None:
        self._head: Head | None = None
        self._done: Done | None = None
        self._data: list[bytes] = []
        self.later = False

    def add(self, payload: bytes) -> None:
        """Take the next part. Raises the error that it carries."""
        part: Part = decode_part(payload)
        if part.failure is not None:
            kind = KINDS.get(part.failure.kind, SqlError)
            raise kind(part.failure.line, part.failure.detail)
        self.later = part.later
        self._head = part.head or self._head
        self._done = part.done or self._done
        if part.data:
            self._data.append(part.data)

    def result(self) -> Result:
        """Return the whole answer. Raises SqlError where its end is missing."""
        if self._head is None or self._done is None:
            raise SqlError("the answer broke off before its end: ask again")
        with pa.ipc.open_stream(pa.py_buffer(b"".join(self._data))) as reader:
            table = reader.read_all()
        return Result(
            table, self._head.types, position=self._head.position, as_of=self._head.as_of,
            truncated=self._done.truncated, seconds=self._done.seconds, stopped=self._head.stopped,
        )  # fmt: skip
