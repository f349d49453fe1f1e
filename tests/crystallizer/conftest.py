"""Sandboxes that the tests of this room share, and the reason where a tool cannot be run on this machine."""

from collections.abc import Iterator
from functools import cache

import pytest

from morphogen.kernels.sandbox import LayerMissing, Limits, Sandbox

QUICK = Limits(wall_seconds=2.0, cpu_seconds=1)


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
    """A pool for the whole room; tests skip where its layers do not hold."""
    if lacking():
        pytest.skip(f"this machine has not what the sandbox requires: {lacking()}")
    with Sandbox(QUICK, pool=2) as shared:
        yield shared
