"""A log in memory, and stores and indexes over it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from morphogen.bus import Bus, Settings, claims
from morphogen.bus.broker import Endpoint as Broker
from morphogen.consumers.kv_index import Endpoint
from morphogen.consumers.projections import Store
from morphogen.consumers.projections.builtin.kv import Kv
from morphogen.consumers.projections.follow.follower import Follower
from morphogen.schemas import Event, Record, encode_frame

from ..projections.conftest import new_store
from .listening import Listening
from .publishers import Publisher

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
    """Frames in memory, `per_frame` events in each; also a `Source` to fold."""

    messages: list[Stored] = field(default_factory=list)
    n: int = 0
    chunk: int = 3
    per_frame: int = 1

    def write(self, *events: Event, run: str = "kv") -> None:
        for at in range(0, len(events), self.per_frame):
            part = events[at : at + self.per_frame]
            seq = len(self.messages) + 1
            records = [
                Record(self.n + i, one.type, one.version, None, START + seq * SECOND + i, msgspec.Raw(one.encode()))
                for i, one in enumerate(part, 1)
            ]
            self.n += len(part)
            data = encode_frame(records, run=run, attempt=0, rank=0, writer="a" * 16, family="kv")
            self.messages.append(Stored(seq, START + seq * SECOND, f"morphogen.log.{run}.kv.0-0", data))

    async def end(self) -> int:
        return len(self.messages)

    async def read(
        self, after: int, upto: int | None = None, *, follow: bool = False
    ) -> AsyncGenerator[Sequence[Stored], None]:
        end = len(self.messages) if upto is None else min(upto, len(self.messages))
        for start in range(after, end, self.chunk):
            yield self.messages[start : min(start + self.chunk, end)]


def folded(log: Log, path: Path, *, alone: bool = False) -> Store:
    """Return a store into which the whole log is folded; with `alone`, of the projection of KV caches only."""
    store = Store.open(path, [Kv()], epoch="epoch") if alone else new_store(path)

    async def work() -> None:
        await Follower(store, log).catch_up(None)

    asyncio.run(work())
    assert [one.error for one in store.status() if one.error is not None] == []
    return store


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def store_of(tmp_path: Path) -> Iterator[Callable[[Log], Store]]:
    stores: list[Store] = []

    def make(log: Log) -> Store:
        stores.append(folded(log, tmp_path / f"{len(stores)}.duckdb"))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    found = Publisher()
    yield found
    found.close()


@pytest.fixture
def bus(settings: Settings, broker: Broker) -> Iterator[Bus]:
    with Bus.open(settings) as found:
        yield found


@pytest.fixture
def listen(bus: Bus, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Listening]]:
    """Begins to listen to a publisher, under the name w."""
    monkeypatch.setattr(claims, "_PATIENCE", 0.02)
    made: list[Listening] = []

    def start(publisher: Publisher, **options: Any) -> Listening:
        replay = options.pop("replay", publisher.replay_address)
        endpoint = Endpoint(address=publisher.address, replay=replay, worker="w", topic=options.pop("topic", ""))
        made.append(Listening(bus, settings, endpoint, **options))
        publisher.wait_for_subscriber()
        return made[-1]

    yield start
    for one in made:
        one.stop()


def rows(store: Store, sql: str, params: list[Any] | None = None) -> list[Any]:
    """Return the rows of a question."""
    with store.reading() as con:
        return con.execute(sql, params or []).fetchall()  # type: ignore[no-any-return]
