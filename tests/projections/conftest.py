"""A log in memory that projections can be fed from, and stores over it."""

import asyncio
import functools
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from morphogen.consumers.projections import Projection, Store, discover
from morphogen.consumers.projections.follow.follower import Follower
from morphogen.schemas import Event, Record, encode, encode_frame

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND


@dataclass(frozen=True)
class Stored:
    """A message as the bus reads it."""

    seq: int
    stored: int
    subject: str
    data: bytes

    @property
    def size(self) -> int:
        """How many bytes the message has in the log."""
        return len(self.data)


@dataclass
class Log:
    """Frames in memory, written like producers write them; also a `Source` to fold."""

    messages: list[Stored] = field(default_factory=list)
    counters: dict[tuple[str, str, str], int] = field(default_factory=dict)
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    reads: list[tuple[int, int | None]] = field(default_factory=list)
    chunk: int = 3

    def write(
        self,
        *events: Event | tuple[str, int, Any],
        run: str = "run",
        attempt: int = 1,
        rank: int = 0,
        writer: str = "aaaaaaaaaaaaaaaa",
        step: int | None = None,
        cause: str | None = None,
        first: int | None = None,
        family: str | None = None,
        replay: str | None = None,
    ) -> int:
        """Append one frame of events of one family (or of (type, version, body)); return its sequence."""
        named = [
            (e.type, e.version, e.encode()) if isinstance(e, Event) else (e[0], e[1], encode(e[2])) for e in events
        ]
        family = family or named[0][0].split(".")[0]
        lane = (run, family, writer)
        n = self.counters.get(lane, 0) + 1 if first is None else first
        seq = len(self.messages) + 1
        records = [
            Record(n=n + i, type=kind, version=version, step=step, time=START + seq * SECOND + i, body=msgspec.Raw(body),
                   cause=cause)
            for i, (kind, version, body) in enumerate(named)
        ]  # fmt: skip
        self.counters[lane] = max(self.counters.get(lane, 0), n + len(records) - 1)
        data = encode_frame(records, run=run, attempt=attempt, rank=rank, writer=writer, family=family, replay=replay)
        return self.put(data)

    def put(self, data: bytes) -> int:
        """Append the bytes of a message, whatever they are; return its sequence."""
        seq = len(self.messages) + 1
        self.messages.append(Stored(seq, START + seq * SECOND + 500, "morphogen.log.run.x.1-0", data))
        self.grown.set()
        return seq

    async def end(self) -> int:
        return len(self.messages)

    async def read(
        self, after: int, upto: int | None = None, *, follow: bool = False
    ) -> AsyncGenerator[Sequence[Stored], None]:
        self.reads.append((after, upto))
        position = after
        while True:
            end = len(self.messages) if upto is None else min(upto, len(self.messages))
            while position < end:
                some = self.messages[position : min(position + self.chunk, end)]
                position = some[-1].seq
                yield some
                await asyncio.sleep(0)
            if not follow:
                return
            self.grown.clear()
            if position >= len(self.messages):
                await self.grown.wait()


@pytest.fixture
def log() -> Log:
    """An empty log."""
    return Log()


@pytest.fixture
def fresh() -> Callable[[], Log]:
    """What makes another empty log."""
    return Log


@functools.cache
def _empty_store() -> bytes:
    """Return the file of a store of the built-in projections into which nothing was folded."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.duckdb"
        Store.open(path, discover((), installed=False), epoch="epoch").close()
        return path.read_bytes()


def new_store(path: Path, **options: Any) -> Store:
    """Open a store of the built-in projections; where there is none yet, in a copy of an empty one.

    To copy one takes a tenth of the time that making its tables takes.
    """
    if not path.exists():
        path.write_bytes(_empty_store())
    return Store.open(path, discover((), installed=False), epoch="epoch", **options)


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """What opens a store under the test's folder, by name, with the built-in projections and any further ones."""
    opened: list[Store] = []

    def open_one(
        name: str = "store",
        extra: Sequence[type[Projection]] = (),
        only: Sequence[Projection] | None = None,
        **options: Any,
    ) -> Store:
        path = tmp_path / f"{name}.duckdb"
        if only is None and not extra and not path.exists():
            opened.append(new_store(path, **options))
        else:
            projections = discover(extra, installed=False) if only is None else only
            opened.append(Store.open(path, projections, epoch="epoch", **options))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def catch_up() -> Callable[..., int]:
    """What brings a store up with a log, in batches of about `batch_bytes`."""

    def run(store: Store, log: Log, upto: int | None = None, *, batch_bytes: int = 1 << 24, **options: Any) -> int:
        async def main() -> int:
            async with asyncio.timeout(60):
                return await Follower(store, log, batch_bytes=batch_bytes, **options).catch_up(upto)

        return asyncio.run(main())

    return run


@pytest.fixture
def ask() -> Callable[..., list[Any]]:
    """What runs a query on a store and returns its rows."""

    def run(store: Store, sql: str, as_of: int | None = None) -> list[Any]:
        with store.reading(as_of) as con:
            return con.execute(sql).fetchall()

    return run
