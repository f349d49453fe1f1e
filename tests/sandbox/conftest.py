"""A pool that the tests of this room share, and one that starts an interpreter for each call."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from morphogen.kernels.sandbox import LayerMissing, Limits, Sandbox

QUICK = Limits(wall_seconds=1.0, cpu_seconds=30)  # only the wall ends what does not end by itself


@pytest.fixture(scope="session")
def pooled() -> Iterator[Sandbox]:
    with Sandbox(QUICK, pool=2) as sandbox:
        yield sandbox


WAYS: list[dict[str, Any]] = [{"own_interpreter": True}, {"pool": 0}, {"pool": 2}]


@pytest.fixture(scope="session", params=WAYS, ids=["interpreter", "forked", "pooled"])
def either(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(QUICK, **request.param) as sandbox:
        yield sandbox


@cache
def lacking() -> str | None:
    """Say why a tool cannot be run on this machine, None where it can."""
    try:
        with Sandbox(QUICK, own_interpreter=True) as sandbox:
            sandbox.run("def run():\n    return 1\n")
    except LayerMissing as missing:
        return str(missing)
    return None


@pytest.fixture(autouse=True)
def _layers(request: pytest.FixtureRequest) -> None:
    if request.module.__name__.rpartition(".")[2] not in {"test_codec", "test_grammar", "test_seccomp"} and lacking():
        pytest.skip(f"this machine has not what the sandbox requires: {lacking()}")
