"""The bell between the trainer's threads and the background thread."""

import gc
import os
from collections.abc import Callable

import pytest

from morphogen.bus.spool.bell import Bell, Ear


def test_a_publisher_that_lets_go_while_somebody_rings_disturbs_nobody() -> None:
    rung: list[str] = []
    rings: list[Callable[[], None] | None] = [lambda: rung.append("rung"), None]

    class Closing(Bell):
        @property
        def ring(self) -> Callable[[], None] | None:
            return rings.pop(0)

        @ring.setter
        def ring(self, value: object) -> None:
            pass

    Closing().attend()
    assert rung == ["rung"]


@pytest.mark.usefixtures("no_descriptors")
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("eventfd", [True, False])
def test_without_a_descriptor_to_be_had_there_is_one_error_and_nothing_beside_it(
    monkeypatch: pytest.MonkeyPatch, eventfd: bool
) -> None:
    if not eventfd:
        monkeypatch.delattr(os, "eventfd", raising=False)

    with pytest.raises(OSError, match="Too many open files"):
        Ear()


def test_a_pipe_that_cannot_be_made_ready_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "eventfd", raising=False)
    made: list[int] = []
    pipe = os.pipe

    def noted() -> tuple[int, int]:
        made.extend(pipe())
        return made[0], made[1]

    def refuse(fd: int, blocking: bool) -> None:
        raise OSError(9, "no")

    monkeypatch.setattr(os, "pipe", noted)
    monkeypatch.setattr(os, "set_blocking", refuse)
    with pytest.raises(OSError, match="no"):
        Ear()
    gc.collect()

    for fd in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
