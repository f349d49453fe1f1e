"""A package of a user's own: its events and projections are found by what it installs, and nothing of ours names it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus.settings import Settings

EVENTS = """
import datetime
import msgspec
from morphogen import Event, upcaster

class Local(msgspec.Struct, tag="local"):
    path: str

class Remote(msgspec.Struct, tag="remote"):
    bucket: str

VERSION = {version}
if VERSION == 1:
    class Saved(Event, type="mine.saved", version=1):
        when: datetime.datetime
        place: Local | Remote
        digest: bytes | None = None
else:
    class Saved(Event, type="mine.saved", version=3):
        at: datetime.datetime
        places: list[Local | Remote]
        digest: bytes = b""

    @upcaster("mine.saved", from_version=1)
    def _when_is_at(body):
        return {{**body, "at": body.pop("when"), "digest": body.get("digest") or b"none"}}

    @upcaster("mine.saved", from_version=2)
    def _many_places(body):
        return {{**body, "places": [body.pop("place")]}}
"""
TABLES = """
from morphogen import Projection
from morphogen.consumers.projections.builtin.metrics import MetricRows  # imported only: not this module's own

class Saves(Projection, name="saves", version={version}, types=("mine.saved",)):
    tables = {{"saves": "kinds VARCHAR, digest BLOB"}}
    views = {{"save_counts": "SELECT run, count(*) AS n FROM saves GROUP BY ALL"}}

    def rows(self, event):
        places = getattr(event.body, "places", None) or [event.body.place]
        yield ",".join(type(place).__name__ for place in places), event.body.digest
"""
RECORD = """
import datetime
import morphogen
from mine.events import Local, Remote, Saved

with morphogen.record("saver") as run:
    when = datetime.datetime(2026, 1, 2)
    run.event(Saved(when=when, place=Local(path="a")))
    run.event(Saved(when="no time at all", place=None))
    run.event(Saved(when=when, place=Remote(bucket="b"), digest=b"\\xff"))
"""


def install(site: Path, *, version: int = 1, events: str = EVENTS) -> None:
    """Put the package and what its wheel would say of it into a folder of packages."""
    (site / "mine").mkdir(parents=True, exist_ok=True)
    (site / "mine" / "__init__.py").touch()
    (site / "mine" / "events.py").write_text(events.format(version=version))
    (site / "mine" / "tables.py").write_text(TABLES.format(version=version))
    info = site / "mine-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[morphogen.events]\nmine = mine.events\n[morphogen.projections]\nmine = mine.tables\n"
    )


def python(site: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Python where the package is installed; no bytecode, for its files change within a second."""
    env = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=env, capture_output=True, text=True, timeout=120, check=False
    )


def asked(site: Path, sql: str) -> list[dict[str, Any]]:
    """Return the rows that the command line, which names nothing of the package, answers with."""
    done = python(site, "-m", "morphogen.cli", "sql", sql, "--wait", "-f", "json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture
def site(tmp_path: Path, settings: Settings) -> Path:
    """A folder of packages in which the package is, and whose events are in the log."""
    install(tmp_path)
    done = python(tmp_path, "-c", textwrap.dedent(RECORD))
    assert done.returncode == 0, done.stderr
    return tmp_path


def test_installed_events_and_tables_are_found_and_lifted_over_two_versions(site: Path) -> None:
    assert asked(site, "SELECT kinds, digest FROM saves ORDER BY seq, idx") == [
        {"kinds": "Local", "digest": None},
        {"kinds": "Remote", "digest": "/w=="},
    ]
    assert asked(site, "SELECT count(*) AS n FROM events WHERE type = 'mine.saved'") == [{"n": 3}]

    install(site, version=3)

    assert asked(site, "SELECT kinds, digest FROM saves ORDER BY seq, idx") == [
        {"kinds": "Local", "digest": "bm9uZQ=="},
        {"kinds": "Remote", "digest": "/w=="},
    ]
    assert asked(site, "SELECT run, n FROM save_counts") == [{"run": "saver", "n": 2}]


def test_two_packages_with_one_projection_name_are_refused_in_one_line(tmp_path: Path) -> None:
    install(tmp_path)
    (tmp_path / "others.py").write_text("from mine.tables import *\n" + TABLES.format(version=2))
    info = tmp_path / "others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[morphogen.projections]\nothers = others\nagain = mine.tables:Saves\n")

    code = "from morphogen.consumers.projections import DeclarationError, discover\ntry:\n discover()\nexcept DeclarationError as e:\n print(e)"
    done = python(tmp_path, "-c", code)

    assert done.stdout == (
        "projection 'saves' is declared by two installed packages: mine.tables.Saves and others.Saves; rename it in one, "
        "or uninstall that\n"
    ), done.stderr


def test_a_package_whose_events_cannot_be_imported_costs_only_its_own(site: Path) -> None:
    install(site, events="import nothing_of_that_name\n")
    (site / "mine-1.0.dist-info" / "entry_points.txt").write_text("[morphogen.events]\nmine = mine.events\n")

    done = python(site, "-m", "morphogen.cli", "sql", "SELECT count(*) AS n FROM events", "--wait", "-f", "csv")

    assert done.stdout.splitlines()[1] == "6", done
    assert "mine.events cannot be loaded: ModuleNotFoundError" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_projection_that_stopped_is_told_by_status(site: Path) -> None:
    (site / "mine" / "tables.py").write_text(TABLES.format(version=2) + "\n    def rows(self, event):\n        1 / 0\n")
    done = python(site, "-m", "morphogen.cli", "up", "--projector")
    pid = int(done.stdout.split("projector, pid ")[1].split()[0])
    try:
        end = time.monotonic() + 30
        while "stopped" not in (said := python(site, "-m", "morphogen.cli", "status").stdout):
            assert time.monotonic() < end, said
        asked = python(site, "-m", "morphogen.cli", "sql", "SELECT count(*) AS n FROM saves", "-f", "csv")
    finally:
        os.kill(pid, signal.SIGTERM)

    (line,) = [line for line in said.splitlines() if line.startswith("stopped")]
    assert "projection 'saves' failed on messages" in line
    assert "ZeroDivisionError" in line
    assert ", 0 behind" in said
    assert (asked.returncode, asked.stdout) == (0, '"n"\n0\n')
    assert "projection 'saves' failed on messages" in asked.stderr
