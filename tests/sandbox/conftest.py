"""A pool that the tests of this room share, and one that starts an interpreter for each call."""

from collections.abc import Iterator

import pytest

from morphogen.kernels.sandbox import Limits, Sandbox

QUICK = Limits(wall_seconds=1.0, cpu_seconds=1)


@pytest.fixture(scope="session")
def pooled() -> Iterator[Sandbox]:
    with Sandbox(QUICK, pool=2) as sandbox:
        yield sandbox


@pytest.fixture(scope="session", params=[0, 2], ids=["fresh", "pooled"])
def either(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(QUICK, pool=request.param) as sandbox:
        yield sandbox
