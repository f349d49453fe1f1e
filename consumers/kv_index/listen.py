"""Listen to another engine and write what it says into the log, so that its caches are seen beside ours.

    await Listener(conn, settings, "vllm-a", [Endpoint("tcp://127.0.0.1:5557", replay="tcp://127.0.0.1:5558")]).run()

What the engine says while nobody listens is asked for again; what cannot be had is an event of its own, `kv.gap`. Several
messages that wait are written in one frame, each of them whole. Where the log was made anew, all that the engine still has
is written into the new one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Some
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from morphogen.bus.claims import Claim
from morphogen.bus.errors import StreamMissing, StreamReplaced
from morphogen.bus.frames import frames
from morphogen.bus.past import past
from morphogen.schemas import Event, decode_event, token

from .errors import NotListening
from .feed import Counts, DynamoFeed, Feed, VllmFeed, rank_of
from .logbook import FAMILY, Logbook, run_of
from .sequence import Sequence, Step
from .sources import Source, is_nats, source_of
from .waiting import log_there, patiently

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection
    from morphogen.bus.settings import Settings

DIALECTS = ("vllm", "dynamo")
_AT_ONCE = 256  # messages that are written together where so many wait
_LONGEST = 256  # characters of a name
_QUIET = 15.0  # seconds of silence after which the publisher is asked whether there is more
_SAY_EVERY = 10.0  # seconds between two lines about messages that cannot be read


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where one publisher is; `worker` is what to call it, by default its address."""

    address: str
    replay: str | None = None
    topic: str = ""
    worker: str | None = None

    @property
    def name(self) -> str:
        """What the worker is called in events."""
        return self.worker or self.address.partition("://")[2]


class Listener:
    """Listens to the publishers of one engine until it is cancelled; `ready` is set once all are subscribed to.

    `told` is called with each line that a person should read. `quiet` is in seconds.
    """

    def __init__(
        self,
        conn: "Connection",
        settings: "Settings",
        engine: str,
        endpoints: Some[Endpoint],
        *,
        dialect: str = "vllm",
        model: str | None = None,
        block_size: int | None = None,
        quiet: float = _QUIET,
        told: Callable[[str], None] | None = None,
    ) -> None:
        _check(engine, endpoints, dialect, model, block_size)
        self._conn, self._settings, self._engine = conn, settings, engine
        self._dialect, self._model, self._block_size = dialect, model, block_size
        self._quiet, self._told = quiet, told or (lambda line: None)
        self._endpoints = {
            endpoint: source_of(endpoint.address, topic=endpoint.topic, replay=endpoint.replay)
            for endpoint in endpoints
        }
        self._feeds: dict[str, Feed] = {}
        self._at_work: dict[str, _One] = {}
        self.ready = asyncio.Event()

    @property
    def counts(self) -> dict[str, Counts]:
        """What came of each publisher's messages so far, by its name."""
        return {name: feed.counts for name, feed in self._feeds.items()}

    async def run(self, *, once: bool = False) -> None:
        """Listen until cancelled; `once`: write what the publishers have kept that the log has not, and return.

        Raises NotListening where an endpoint cannot be listened to, where another process writes of a publisher of that
        name already, and with `once` where one cannot be asked for what it has kept.
        """
        if once:
            for endpoint in self._endpoints:
                if endpoint.replay is None or self._dialect == "dynamo":
                    raise NotListening(f"{endpoint.name} has no replay socket, so there is nothing to be had at once")
        async with AsyncExitStack() as stack:
            await self._claim(stack)
            for source in self._endpoints.values():
                await stack.enter_async_context(source)
            while True:
                try:
                    return await self._work(once)
                except (StreamReplaced, StreamMissing):
                    self._told("the log was made anew: what the publishers still have is written again")

    async def _claim(self, stack: AsyncExitStack) -> None:
        """Be the only one that writes of these publishers while `stack` is open: two would write everything twice."""
        prefix = f"morphogen.kv_index.writes.{token(self._engine)}"
        claims = {one.name: Claim(self._conn, f"{prefix}.{token(one.name)}") for one in self._endpoints}
        for claim in claims.values():
            stack.push_async_callback(claim.close)
            await claim.open()
        for name, claim in claims.items():
            if not await claim.settle():
                raise NotListening(
                    f"another process at this broker writes of worker {name!r} of engine {self._engine!r} already: "
                    f"end that one, or give this one another --worker or --engine"
                )

    async def _work(self, once: bool) -> None:
        """Listen for one log. Raises StreamReplaced or StreamMissing where it is gone."""
        before = {name: one.sequence if one.begun else one.before for name, one in self._at_work.items()}
        epoch = await patiently(self._conn, self._read_log, f"what is said of {self._engine}")
        self._at_work = {
            endpoint.name: _One(
                endpoint,
                source,
                self._feeds[endpoint.name],
                Logbook(self._conn, self._engine, epoch),
                self._told,
                before.get(endpoint.name),
            )
            for endpoint, source in self._endpoints.items()
        }
        tasks = [
            asyncio.create_task(self._follow(one, once), name=f"morphogen kv {name}")
            for name, one in self._at_work.items()
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_log(self) -> str:
        """Bring new feeds to where the log's past left them, and return the log's epoch."""
        epoch = await log_there(self._conn)
        feeds = {endpoint.name: self._feed(endpoint) for endpoint in self._endpoints}
        async for event in _past(self._conn, self._settings, run_of(self._engine)):
            for feed in feeds.values():
                feed.take(event)
        for name, old in self._feeds.items():
            feeds[name].counts = old.counts
        self._feeds = feeds
        return epoch

    def _feed(self, endpoint: Endpoint) -> Feed:
        if self._dialect == "dynamo":
            return DynamoFeed(self._engine, self._block_size, self._model)
        return VllmFeed(self._engine, endpoint.name, self._model)

    async def _follow(self, one: "_One", once: bool) -> None:
        await one.begin()
        if once and not one.answered:
            raise NotListening(f"{one.endpoint.name}: the replay socket {one.endpoint.replay} does not answer")
        if all(other.begun for other in self._at_work.values()):
            self.ready.set()
        while not once:
            message = await one.source.receive(self._quiet)
            if message is not None:
                await one.take(message)
            else:
                await one.idle()


class _One:
    """One publisher at work: its numbers, its feed, its book."""

    def __init__(
        self,
        endpoint: Endpoint,
        source: Source,
        feed: Feed,
        book: Logbook,
        told: Callable[[str], None],
        before: Sequence | None,
    ) -> None:
        self.endpoint, self.source, self._feed, self._book, self._told = endpoint, source, feed, book, told
        self.sequence = Sequence(feed.last, feed.digest)
        self._groups: list[list[Event]] = []
        self._said = -_SAY_EVERY
        self._bad = feed.counts.bad
        self.before = before  # how far an earlier log went
        self.begun = False
        self.answered = True  # at the last time that the replay socket was asked

    async def begin(self) -> None:
        """Write what the publisher has that the log has not."""
        if self.endpoint.replay is not None:
            await self._check()
        before = self.before
        if before is not None and self.sequence.last < 0 <= before.last:  # the publisher has nothing of it any more
            self._lost(0, before.last, "the log was made anew, and the publisher kept no more", None)
            self.sequence = Sequence(before.last, before.digest)
            await self._write()
        self.begun = True

    async def take(self, message: tuple[int | None, bytes]) -> None:
        """Take a message and those that wait behind it, and write what they say."""
        await self._hear(*message)
        for _ in range(_AT_ONCE - 1):
            following = await self.source.receive(0)
            if following is None:
                break
            await self._hear(*following)
        await self._write()

    async def idle(self) -> None:
        """Look whether the log is still the same, and ask the publisher what it has that was not heard."""
        await self._book.demand_same()
        if self.endpoint.replay is not None:
            await self._check()
        else:
            self._say_bad()

    async def _hear(self, number: int | None, payload: bytes) -> None:
        if number is None or isinstance(self._feed, DynamoFeed):
            self._groups.append(self._feed.message(-1 if number is None else number, payload))
        else:
            await self._step(self.sequence.heard(number, payload))

    async def _check(self) -> None:
        await self._step(self.sequence.check())
        await self._write()

    async def _step(self, step: Step) -> None:
        reason = "the publisher has no replay socket" if self.endpoint.replay is None else "the publisher kept no more"
        while True:
            if step.restarted:
                self._groups.append(self._feed.restarted())
                self._told(f"{self.endpoint.name} began anew: what it held is gone")
            if step.ask is None:
                break
            await self._write()
            found = await self.source.replay(step.ask)
            self.answered = found is not None
            if found is None and self.endpoint.replay is not None:
                reason = "the replay socket does not answer"
            self._feed.counts.replayed += len(found or ())
            step = self.sequence.replayed(found)
        received = step.take[0][0] if step.take else None
        for first, last in step.missing:
            self._lost(first, last, reason, received)
        for number, payload in step.take:
            self._groups.append(self._feed.message(number, payload))
            if len(self._groups) >= _AT_ONCE:
                await self._write()

    def _lost(self, first: int, last: int, reason: str, received: int | None) -> None:
        self._groups.append(self._feed.missing(first, last, reason, received))
        self._told(f"{self.endpoint.name}: messages {first} to {last} are lost: {reason}")

    async def _write(self) -> None:
        groups, self._groups = [group for group in self._groups if group], []
        if groups:
            await self._book.write(groups)
        self._say_bad()

    def _say_bad(self) -> None:
        """Tell of messages that were not understood, now and then."""
        counts, now = self._feed.counts, time.monotonic()
        bad = counts.bad + self.source.malformed
        if bad > self._bad and now - self._said >= _SAY_EVERY:
            last = counts.last_bad or "a message that has not the parts of its dialect"
            self._told(f"{self.endpoint.name}: {bad:,} messages were not understood, the last one: {last}")
            self._bad, self._said = bad, now


def _check(engine: str, endpoints: Some[Endpoint], dialect: str, model: str | None, block_size: int | None) -> None:
    """Raise NotListening for what cannot be listened to as it was said."""
    if dialect not in DIALECTS:
        raise NotListening(f"there is no dialect {dialect!r}: {' or '.join(DIALECTS)}")
    names = [endpoint.name for endpoint in endpoints]
    if not names or len(set(names)) < len(names):
        raise NotListening("each publisher of an engine needs an address and a name of its own")
    for what, text in (("engine", engine), ("model", model), *(("worker", one.worker) for one in endpoints)):
        if text is not None and (not text.strip() or not text.isprintable() or len(text) > _LONGEST):
            raise NotListening(f"{what} {text[:40]!r} is no name: give 1 to {_LONGEST} characters that can be printed")
    for one in names:
        if rank := next((name for name in names if rank_of(name, one)), None):
            raise NotListening(
                f"worker {rank!r} would be taken for a rank of worker {one!r}: call one of them otherwise"
            )
    if dialect == "dynamo" and (block_size or 0) < 1:
        raise NotListening("Dynamo does not say how many tokens a block has: give --block-size (block_size=)")
    for endpoint in endpoints:
        if dialect == "vllm" and is_nats(endpoint.address):
            raise NotListening(f"{endpoint.address}: over NATS comes only what speaks dynamo: give --dialect dynamo")
        if not endpoint.topic.isprintable():
            raise NotListening(f"topic {endpoint.topic[:40]!r} is none: give characters that can be printed")


async def _past(conn: "Connection", settings: "Settings", run: str) -> AsyncIterator[Event]:
    async for batch in past(conn, settings, run=run, family=FAMILY):
        for frame in frames(batch):
            if frame.replay is not None:
                continue
            for record in frame.records:
                event = decode_event(record.type, record.version, record.body)
                if isinstance(event, Event):
                    yield event
