"""A broker and log of its own for each test, with frames in it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from morphogen.bus import broker
from morphogen.bus.connection import Connection, connect
from morphogen.bus.settings import Settings
from morphogen.bus.streams import ensure_streams
from morphogen.schemas import Event, LayerHealth, LogLine, Metrics, Names, Record, encode_frame, token

Body = Callable[[Connection, Settings], Awaitable[None]]
WRITER = "ab" * 8


@pytest.fixture
def bus(home: Path) -> Iterator[Callable[[Body], None]]:
    """Run an async body against a broker and log of its own."""
    settings = Settings(home=home)

    async def go(body: Body) -> None:
        conn = await connect(settings, name="test")
        try:
            await ensure_streams(conn)
            await body(conn, settings)
        finally:
            await conn.close()

    try:
        yield lambda body: asyncio.run(go(body))
    finally:
        broker.down(settings)


def events(step: int) -> list[Event]:
    """Return one event of each of three families."""
    norms = np.array([step, np.nan, np.inf], "f4")
    return [
        Metrics(values={"loss": 1 / (step + 1), "odd": float("nan"), "big": 2**63 - 1}),
        LayerHealth(layers=Names(["a", "b", "c"]), grad_norm=norms),
        LogLine(message=f"step {step} ünïcode"),
    ]


async def fill(conn: Connection, run: str, steps: range, *, per_frame: int = 1) -> int:
    """Publish frames of the run, a family at a time, `per_frame` steps in each; return the last sequence."""
    seq = 0
    for start in range(steps.start, steps.stop, per_frame):
        chunk = range(start, min(start + per_frame, steps.stop))
        for kind in range(3):
            batch = [events(step)[kind] for step in chunk]
            records = [
                Record(step + 1, event.type, event.version, step, 1_000_000 + step, msgspec.Raw(event.encode()))
                for step, event in zip(chunk, batch, strict=True)
            ]
            family = batch[0].family
            data = encode_frame(records, run=run, attempt=1, rank=0, writer=WRITER, family=family)
            ack = await conn.publish_ack(f"morphogen.log.{token(run)}.{token(family)}.1-0", data)
            seq = ack.seq
    return seq
