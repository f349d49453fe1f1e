"""A folder in shared memory that is gone when the test is, and processes that are killed in the middle of things."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import Other

SHM = Path("/dev/shm")


@pytest.fixture
def shm() -> Iterator[Path]:
    """A folder in memory, not made yet."""
    above = Path(tempfile.mkdtemp(prefix="morphogen-test-", dir=SHM if SHM.is_dir() else None))
    yield above / "kv"
    shutil.rmtree(above)


@pytest.fixture
def other() -> Iterator[type[Other]]:
    """The class of other processes; all that a test has started are ended with it."""
    started: list[Other] = []

    class Counted(Other):
        def __init__(self, prelude: str = "") -> None:
            super().__init__(prelude)
            started.append(self)

    yield Counted
    for process in started:
        process.close()
