"""A log in memory to put events into, and stores of the projections of executions, dispatches and tools over it."""

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from morphogen.consumers.executions import At
from morphogen.consumers.projections import Store
from morphogen.consumers.projections.builtin.crystals import Crystals
from morphogen.consumers.projections.builtin.dispatches import Dispatches
from morphogen.consumers.projections.builtin.executions import Executions
from morphogen.consumers.projections.follow.folder import Folder
from morphogen.schemas import Event, Record, encode, encode_frame

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND
VIEWS = (
    "executions", "execution_steps", "execution_families", "execution_modes", "execution_feedback", "goal_embeddings",
    "dispatches", "dispatch_falls", "dispatch_comparisons", "crystal_questions", "crystals", "crystal_versions", "crystal_attempts", "crystal_checks", "crystal_moves",
    "crystal_calls", "crystal_shadows", "crystallization_candidates",
)  # fmt: skip


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
    """Frames in memory, written like producers write them. `apart` is the time between two of them."""

    apart: int = SECOND
    messages: list[Stored] = field(default_factory=list)
    events: list[tuple[Event, At]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)

    def write(self, *events: Event | tuple[str, int, Any], run: str = "") -> int:
        """Append one frame of events of one family; return its sequence."""
        named = [
            (e.type, e.version, e.encode()) if isinstance(e, Event) else (e[0], e[1], encode(e[2])) for e in events
        ]
        family, seq = named[0][0].split(".")[0], len(self.messages) + 1
        n = self.counters.get(family, 0) + 1
        self.counters[family] = n + len(named) - 1
        time = START + seq * self.apart
        records = [
            Record(n=n + at, type=kind, version=version, step=None, time=time + at, body=msgspec.Raw(body), cause=None)
            for at, (kind, version, body) in enumerate(named)
        ]
        data = encode_frame(records, run=run, attempt=1, rank=0, writer="a" * 16, family=family)
        self.messages.append(Stored(seq, time, f"morphogen.log.=.{family}.1-0", data))
        self.events += [
            (event, At(seq, at, time + at, run)) for at, event in enumerate(events) if isinstance(event, Event)
        ]
        return seq


@pytest.fixture
def log() -> Log:
    """An empty log."""
    return Log()


@pytest.fixture(scope="module")
def fold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Store]]:
    """What folds a log into a new store, in as many batches as `cuts` make."""
    folder = tmp_path_factory.mktemp("stores")
    numbers = itertools.count()
    empty = folder / "empty.duckdb"
    projections = lambda: [Executions(), Dispatches(), Crystals()]  # noqa: E731
    Store.open(empty, projections(), epoch="epoch").close()
    opened: list[Store] = []

    def run(log: Log, cuts: Sequence[int] = ()) -> Store:
        while len(opened) > 1:
            opened.pop(0).close()
        path = folder / f"{next(numbers)}.duckdb"
        shutil.copy(empty, path)
        store = Store.open(path, projections(), epoch="epoch")
        opened.append(store)
        places = sorted({0, *(cut for cut in cuts if cut < len(log.messages)), len(log.messages)})
        for start, end in itertools.pairwise(places):
            folded = Folder(store.live, store.lanes(store.front())).fold(log.messages[start:end])
            assert not folded.failed, folded.failed
            store.commit(folded)
        return store

    yield run
    for store in opened:
        store.close()


@pytest.fixture(scope="module")
def ask() -> Callable[..., list[dict[str, Any]]]:
    """What runs a query on a store and returns its rows as dicts."""

    def run(store: Store, sql: str, as_of: int | None = None) -> list[dict[str, Any]]:
        with store.reading(as_of) as con:
            found = con.execute(sql)
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    return run
