"""What the suite stands on: a broker, a projector that answers SQL, recorded runs, a site on loopback. Gone at the end."""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import MODEL, TaskFamily
from honest import RUNS, recorded_run
from world import Rows, Site, World

import morphogen
from morphogen.bus import Bus, broker
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.sql.query import SqlClient
from morphogen.producers.executions import close

STEPS = 40

# What a run of the scripted agent is reckoned to cost. It is configured, as a user configures it, and measured by nobody.
PRICES = f"""["{MODEL}"]
input = 3000000
output = 15000000
"""


@dataclass
class Stage:
    """An open stage. `world(family)` is the folder, site and tables that a family's tasks happen in."""

    settings: Settings
    bus: Bus
    site: Site
    client: SqlClient | None
    worlds: dict[str, World] = field(default_factory=dict)

    def world(self, family: TaskFamily) -> World:
        """Return a family's world, made on first use."""
        if family.name not in self.worlds:
            folder = self.settings.home / "worlds" / family.name
            self.worlds[family.name] = World(folder, self.site, self.ask if self.client else None)
        return self.worlds[family.name]

    def ask(self, query: str) -> Rows:
        """Ask the projections."""
        assert self.client is not None
        rows: Rows = [dict(row) for row in self.client.query(query)]
        return rows


@contextlib.contextmanager
def stage(home: Path, *, sql: bool) -> Iterator[Stage]:
    """Start what the suite needs below `home`, and end it."""
    settings = Settings(home=home)
    os.environ["MORPHOGEN_HOME"] = str(home)
    home.mkdir(parents=True, exist_ok=True)
    (home / "prices.toml").write_text(PRICES)
    broker.ensure(settings)
    site = Site()
    projector: subprocess.Popen[bytes] | None = None
    client: SqlClient | None = None
    try:
        with Bus.open(settings) as bus:
            if sql:
                record_runs(settings)
                projector = subprocess.Popen(
                    [sys.executable, "-m", "morphogen.cli", "projector"],
                    env=os.environ | {"MORPHOGEN_HOME": str(home)},
                    stdout=subprocess.DEVNULL,
                )
                client = SqlClient.shared(settings)
                _answers(client)
            yield Stage(settings, bus, site, client)
    finally:
        close()
        if client is not None:
            client.close()
        if projector is not None:
            projector.terminate()
            projector.wait()
        site.close()
        broker.down(settings)


def record_runs(settings: Settings) -> None:
    """Record the runs that the SQL families ask for: a loss that falls, with bumps."""
    for number in range(RUNS):
        dice = random.Random(f"run {number}")
        with morphogen.record(recorded_run(number), settings=settings) as run:
            loss = dice.uniform(2, 3)
            for step in range(1, STEPS + 1):
                loss *= dice.uniform(0.88, 1.06)
                run.log(loss=round(loss, 6), step=step)


def _answers(client: SqlClient) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if client.status() is not None:
            found: Any = list(client.query("SELECT count(DISTINCT run) AS runs FROM metrics", wait=True))
            if found[0]["runs"] == RUNS:
                return
        time.sleep(0.1)
    raise SystemExit("the projector does not answer; see the lines above")
