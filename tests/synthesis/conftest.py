"""A pool that the tests of this room share."""

from collections.abc import Iterator

import pytest

from morphogen.kernels.sandbox import LayerMissing, Limits, Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Limits(wall_seconds=5.0), pool=1) as found:
        try:
            found.run("def run():\n    return 1\n")
        except LayerMissing as missing:
            pytest.skip(f"this machine has not what the sandbox requires: {missing}")
        yield found
