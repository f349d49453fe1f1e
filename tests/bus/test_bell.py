"""The bell between the trainer's threads and the background thread."""

from collections.abc import Callable

from morphogen.bus.spool.bell import Bell


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
