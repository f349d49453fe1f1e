"""A server in the background of a bus, and a run that would grow by its commands, epoch by epoch."""

import asyncio
import time
from typing import Any

import msgspec

from morphogen.bus import Bus, Settings
from morphogen.consumers.policy import load_policy
from morphogen.consumers.policy.serve import PolicyServer, Served
from morphogen.producers import record
from morphogen.schemas import EpochMeasured


class Serving:
    """A server in the background of a bus."""

    def __init__(self, bus: Bus, policy: str) -> None:
        self.served: list[Served] = []
        self.server = PolicyServer(
            bus.conn, lambda seed: load_policy(policy, seed=seed), quiet=0.05, told=self.served.append
        )
        self.future = bus.start(self.server.run())
        bus.run(asyncio.wait_for(self.server.ready.wait(), 20))

    def wait(self, count: int, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while len(self.served) < count and time.monotonic() < end:
            time.sleep(0.02)
        assert len(self.served) >= count, self.served

    def kill(self) -> None:
        """End it where it stands."""
        self.future.cancel()


class Remote:
    """What a growing run would record, epoch by epoch; `more` goes into its configuration."""

    def __init__(self, play: Any, settings: Settings, name: str, policy: str = "remote", more: str = "") -> None:
        self.run = record(name, settings=settings)
        paper = play(load_policy("none"), epochs=0)
        paper.begin()
        started = paper.told[0].event
        config = {**started.config, "more": more}
        self.run.event(msgspec.structs.replace(started, policy=policy, config=config))
        self.run.flush()
        self.epochs = 0

    def epoch(self, plateau: bool = True) -> None:
        self.run.event(EpochMeasured(epoch=self.epochs, val_loss=1.0, plateau=plateau), step=4 * self.epochs)
        self.epochs += 1
        self.run.flush()
