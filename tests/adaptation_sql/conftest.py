"""A log in memory to put events into, and stores over it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from morphogen.consumers.projections import Store
from morphogen.consumers.projections.follow.follower import Follower
from morphogen.schemas import (
    Event,
    Record,
    encode_frame,
)

from ..projections.conftest import new_store

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
    """Frames in memory, one an event, written like producers write them; also a `Source` to fold."""

    messages: list[Stored] = field(default_factory=list)
    counters: dict[tuple[str, int, str], int] = field(default_factory=dict)
    chunk: int = 3

    def write(
        self,
        *events: Event,
        run: str = "grown",
        attempt: int = 1,
        rank: int = 0,
        step: int | None = None,
        ahead: int = 0,
    ) -> None:
        """Append events, each in a frame of its own, by a clock that is `ahead` nanoseconds of the broker's."""
        for event in events:
            family, seq = event.type.split(".")[0], len(self.messages) + 1
            lane = (run, attempt, family)
            n = self.counters[lane] = self.counters.get(lane, 0) + 1
            record = Record(
                n=n, type=event.type, version=event.version, step=step, time=START + seq * SECOND + ahead,
                body=msgspec.Raw(event.encode()), cause=None,
            )  # fmt: skip
            data = encode_frame([record], run=run, attempt=attempt, rank=rank, writer=f"{attempt:016x}", family=family)
            self.messages.append(Stored(seq, START + seq * SECOND, f"morphogen.log.{run}.{family}.1-0", data))

    async def end(self) -> int:
        return len(self.messages)

    async def read(
        self, after: int, upto: int | None = None, *, follow: bool = False
    ) -> AsyncGenerator[Sequence[Stored], None]:
        end = len(self.messages) if upto is None else min(upto, len(self.messages))
        for at in range(after, end, self.chunk):
            yield self.messages[at : min(at + self.chunk, end)]


@pytest.fixture
def log() -> Log:
    """An empty log."""
    return Log()


def open_store(path: Path, log: Log, upto: int | None = None, batch_bytes: int = 1 << 24) -> Store:
    """Fold a log into the store at `path`, as the projector does."""
    store = new_store(path)

    async def main() -> None:
        await Follower(store, log, batch_bytes=batch_bytes).catch_up(upto)

    asyncio.run(main())
    assert [one.error for one in store.status() if one.error is not None] == []
    return store


@pytest.fixture
def folded(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """What folds a log into a store of a given name."""
    opened: list[Store] = []

    def fold(log: Log, name: str = "store", **options: Any) -> Store:
        opened.append(open_store(tmp_path / f"{name}.duckdb", log, **options))
        return opened[-1]

    yield fold
    for store in opened:
        store.close()


@pytest.fixture(scope="module")
def ask() -> Callable[..., list[Any]]:
    """What runs a query on a store and returns its rows."""

    def run(store: Store, sql: str, as_of: int | None = None) -> list[Any]:
        with store.reading(as_of) as con:
            return con.execute(sql).fetchall()  # type: ignore[no-any-return]

    return run
