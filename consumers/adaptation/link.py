"""Between growth and what records its run: what is told, what is heard, and at which step."""

import logging
import weakref
from collections import deque
from collections.abc import Callable, Iterator

from morphogen.schemas import Event, LayerHealth, line_of

from .recorder import Recorder

SAMPLES = 4  # of the layers' health, for one decision
LEAST = 64  # steps from one sample to the next: one costs up to half of a step that takes a millisecond

_log = logging.getLogger("morphogen")


class Link:
    """One recorder, and whatever of `subscribe`, `before_end`, `settle`, `step` and `pace` it has beside `event`.

    `ending` is called once when the run ends by itself. The recorder holds neither this nor what `ending` belongs to.
    """

    def __init__(self, run: Recorder, ending: Callable[[], None]) -> None:
        self.run = run
        self._health: deque[tuple[LayerHealth, int | None]] = deque()
        self._step: int | None = None
        self._unrecorded = 0
        self._undo: list[Callable[[], None]] = []
        this, end = weakref.ref(self), weakref.WeakMethod(ending)

        def heard(event: Event, step: int | None) -> None:
            link = this()
            if link is not None and type(event) is LayerHealth:
                link._health.append((event, step))

        def ended() -> None:
            call = end()
            if call is not None:
                call()

        for name, callback in (("subscribe", heard), ("before_end", ended)):
            register = getattr(run, name, None)
            if callable(register):
                undo = register(callback)
                if callable(undo):
                    self._undo.append(undo)

    @property
    def name(self) -> str:
        """What tells this attempt of the run from all others."""
        run = self.run
        return f"{getattr(run, 'name', '')}\0{getattr(run, 'attempt', 1)}\0{getattr(run, 'rank', 0)}"

    def step(self) -> int | None:
        """Return the newest step that the program or the health of its layers named; it never falls."""
        named = getattr(self.run, "step", None)
        if isinstance(named, int) and named > (self._step or 0):
            self._step = named
        return self._step

    def record(self, event: Event, cause: str | None) -> str | None:
        """Record an event at the newest step and return its id; None where it was not taken."""
        try:
            return self.run.event(event, step=self.step(), cause=cause)
        except Exception as error:  # noqa: BLE001  anybody's recorder; what was done is done all the same
            if not self._unrecorded:
                _log.warning("growth is not recorded: %s: %s (said once)", type(error).__name__, line_of(error))
            self._unrecorded += 1
            return None

    def heard(self) -> Iterator[tuple[LayerHealth, int | None]]:
        """Yield the health of the layers up to now, with its steps."""
        settle = getattr(self.run, "settle", None)
        if callable(settle):
            settle()
        while self._health:
            event, step = self._health.popleft()
            if step is not None and step > (self._step or 0):
                self._step = step
            yield event, step

    def pace(self) -> None:
        """Have layers measured as often as the next decision needs, where nobody said how often."""
        pace = getattr(self.run, "pace", None)
        if callable(pace):
            pace(SAMPLES, LEAST)

    def close(self) -> None:
        """Hear no more."""
        for undo in self._undo:
            undo()
        self._undo = []
