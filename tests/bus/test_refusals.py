"""A log that does not take a lane is told once for its reason, and neither hides what others take nor holds up `sync`."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from morphogen.bus.connection import Connection, PubAck
from morphogen.bus.errors import JetStreamApiError
from morphogen.bus.settings import Settings
from morphogen.bus.spool import Kind
from morphogen.bus.spool import courier as couriers
from morphogen.bus.spool import drain as drains
from morphogen.bus.spool.leftover import leftovers
from morphogen.bus.spool.publisher import Publisher
from morphogen.bus.spool.spool import Spool

ServerOf = Callable[[str], int]

STARTED = Kind("run.started", 1)
SCALARS = Kind("metrics.scalars", 1)
BODY = msgspec.msgpack.encode({"values": {"loss": 0.5}})


def recorded(settings: Settings, run: str, *families: str) -> tuple[Spool, Publisher]:
    spool = Spool.create(settings, run=run)
    publisher = Publisher(settings)
    publisher.add(spool)
    spool.lane("run").append(STARTED, None, time.time_ns(), None, msgspec.msgpack.encode({}))
    for family in families:
        spool.lane(family).append(SCALARS, 1, 5, None, BODY)
    return spool, publisher


def test_each_reason_is_told_once_for_all_lanes_and_the_end_of_the_last(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(couriers, "_LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(couriers, "_FIRST_PAUSE", 0.02)
    monkeypatch.setattr(couriers, "_WORTH_A_LINE", 0.0)
    true = Connection.publish_ack
    refused: list[str] = []
    reasons = {"metrics": "no room for {} s", "health": "no room for {}.5 s", "log": "not allowed"}

    async def publish(conn: Connection, subject: str, *args: Any, **more: Any) -> PubAck:
        family = subject.split(".")[3]
        if family in reasons and len(refused) < 60:
            refused.append(family)
            raise JetStreamApiError(503, 1, reasons[family].format(len(refused)))
        return await true(conn, subject, *args, **more)

    monkeypatch.setattr(Connection, "publish_ack", publish)
    with caplog.at_level(logging.INFO, logger="morphogen.bus"):
        _, publisher = recorded(settings, "r", *reasons)
        assert publisher.close(20.0)

    assert {refused.count(family) > 5 for family in reasons} == {True}
    told = [record.message for record in caplog.records if "does not take events" in record.message]
    assert sorted(line.partition("the spool: ")[2][:7] for line in told) == ["no room", "not all"]
    assert caplog.text.count("takes events of run r again") == 1


NOT_METRICS = """
jetstream {{ store_dir: "{}" }}
authorization {{ users: [ {{user: me, password: x, permissions: {{publish: {{deny: "morphogen.log.*.metrics.>"}}}}}} ] }}
"""


def test_sync_leaves_what_the_log_does_not_take_says_why_and_brings_the_rest(
    settings: Settings, server_of: ServerOf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(drains, "_PATIENCE", 1.5)
    monkeypatch.setattr(drains, "_LESS_PATIENCE", 0.8)
    away = Settings(home=settings.home, urls=("nats://127.0.0.1:1",))
    for run, families in (("a", ("metrics", "log")), ("b", ("metrics",)), ("c", ("log",))):
        _, publisher = recorded(away, run, *families)
        assert not publisher.close(0.05)
    port = server_of(NOT_METRICS.format(settings.home / "store"))
    there = Settings(home=settings.home, urls=(f"nats://me:x@127.0.0.1:{port}",))
    caplog.clear()

    report = asyncio.run(drains.drain(there))

    assert (report.spools, report.stuck, report.events) == (3, 2, 5)
    assert len(list(leftovers(settings))) == 2
    assert caplog.text.count(": stays: ") == 2
    assert caplog.text.count("permissions violation for publish to") >= 2
