"""One sandbox for the room, and the reason where a tool cannot be run on this machine."""

from collections.abc import Iterator
from functools import cache

import pytest

from morphogen.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.kernels.sandbox import LayerMissing, Limits, Sandbox
from morphogen.producers import executions

QUICK = Limits(wall_seconds=5.0, cpu_seconds=2)


@cache
def lacking() -> str | None:
    """Say why a tool cannot be run on this machine, None where it can."""
    try:
        with Sandbox(QUICK, own_interpreter=True) as sandbox:
            sandbox.run("def run():\n    return 1\n")
    except LayerMissing as missing:
        return str(missing)
    return None


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    if lacking():
        pytest.skip(f"this machine has not what the sandbox requires: {lacking()}")
    with Sandbox(QUICK, pool=2) as shared:
        yield shared


@pytest.fixture
def bus(settings: Settings) -> Iterator[Bus]:
    """A log of its own."""
    with Bus.open(settings, name="test") as opened:
        yield opened
    executions.close()
