"""What growth asks of whatever records a run."""

from typing import Protocol

from morphogen.schemas import Event


class Recorder(Protocol):
    """Takes events and names them; `morphogen.record(...)` is one, and so is anything with this method.

    A recorder may also have `subscribe`, `settle`, `before_end`, `step` and `settings` as a recorded run has them;
    without these, layers are not measured and the end of the run must be told by `Grower.finish`.
    """

    def event(self, event: Event, *, step: int | None = None, cause: str | None = None) -> str | None:
        """Record an event and return its id, or None where it was not taken."""
