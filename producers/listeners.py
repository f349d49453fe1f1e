"""Who wants to hear of each event that a run records."""

from collections.abc import Callable

from morphogen.schemas import Event

from .refusals import Refusals

Listener = Callable[[Event, int | None], object]


class Listeners:
    """Called with each event and its step, in the order in which they came; may change from any thread."""

    def __init__(self, refusals: Refusals) -> None:
        self._refusals = refusals
        self._all: tuple[Listener, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, listener: Listener) -> Callable[[], None]:
        """Call `listener(event, step)` from here on; return what ends that."""
        self._all = (*self._all, listener)

        def end() -> None:
            self._all = tuple(one for one in self._all if one is not listener)

        return end

    def tell(self, event: Event, step: int | None) -> None:
        """Call all of them; what one raises is said once."""
        for listener in self._all:
            try:
                listener(event, step)
            except Exception as error:  # noqa: BLE001  a listener is not to stop the recording
                self._refusals.say(f"subscriber {listener!r:.100}", f"{type(error).__name__}: {error}")
