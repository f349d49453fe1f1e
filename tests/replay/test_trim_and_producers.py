"""Producers go on over a log that was trimmed behind their backs: nothing is lost, nothing comes twice."""

import asyncio
import time

import msgspec

from morphogen.bus.connection import Connection
from morphogen.bus.past import past
from morphogen.bus.settings import Settings
from morphogen.bus.spool import Kind
from morphogen.bus.spool.publisher import Publisher
from morphogen.bus.spool.spool import Spool
from morphogen.bus.streams import LOG, stream_info
from morphogen.replay.archive import archive
from morphogen.schemas import decode_frame

from .conftest import Body, Callable
from .test_archive_job import later

SCALARS = Kind("metrics.scalars", 1)
BODY = msgspec.msgpack.encode({"values": {"loss": 0.5}})


async def counters(conn: Connection, settings: Settings) -> list[int]:
    """Return the counters of all metrics of the past, in its order."""
    frames = [decode_frame(m.data) async for batch in past(conn, settings, family="metrics") for m in batch]
    return [record.n for frame in frames for record in frame.records]


def test_a_running_producer_goes_on_after_all_it_sent_was_trimmed(bus: Callable[[Body], None]) -> None:
    async def body(conn: Connection, settings: Settings) -> None:
        spool = Spool.create(settings, run="r")
        publisher = Publisher(settings)
        publisher.add(spool)
        lane = spool.lane("metrics", high_rate=True)
        try:
            for round_ in range(3):
                for n in range(50):
                    lane.append(SCALARS, round_ * 50 + n, time.time_ns(), None, BODY)
                assert await asyncio.to_thread(publisher.flush, 20)
                await archive(conn, settings, trim_log=True, keep=0, now_ns=later())
                assert (await stream_info(conn, LOG)).messages == 0
        finally:
            await asyncio.to_thread(publisher.close, 5)

        assert await counters(conn, settings) == list(range(1, 151))

    bus(body)
