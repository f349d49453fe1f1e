"""Record the health of the layers that a run watches, each measurement under the step that the job names."""

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from morphogen.bus.spool import Kind, Spool
from morphogen.schemas import LayerHealth, Names, encode

from .listeners import Listeners
from .refusals import Refusals
from .stepclock import StepClock

if TYPE_CHECKING:
    from .watch import LayerSample, Watch

_KIND = Kind(LayerHealth.type, LayerHealth.version)


class Health:
    """The watches of one run.

    What a watch holds holds neither the run nor its listeners, which may: it ends when the program drops it.
    """

    def __init__(self, spool: Spool, listeners: Listeners, refusals: Refusals) -> None:
        self._spool = spool
        self._listeners = listeners
        self._refusals = refusals
        self._unhurried: tuple[Watch, ...] = ()
        self.watches: tuple[tuple[Watch, StepClock[LayerSample]], ...] = ()
        """Each with the clock that is to be told the steps that the job names."""

    def watch(self, model: Any, optimizer: Any, every: int | None) -> None:
        """Begin to measure. Raises TypeError and ValueError for what cannot be watched, ImportError without torch."""
        from .watch import Watch

        if not (hasattr(optimizer, "param_groups") or hasattr(optimizer, "optimizer")):
            raise TypeError(f"an optimizer is expected, not a {type(optimizer).__name__}: watch once there is one")
        clock: StepClock[LayerSample] = StepClock(partial(_record, self._spool, weakref.ref(self._listeners)))
        watch = Watch(
            model,
            optimizer,
            every=1 if every is None else every,
            emit=lambda sample: clock.sample(sample, sample.step),
            stopped=partial(self._refusals.say, "watch"),
        )
        self.watches = (*self._unfinished(), (watch, clock))
        if every is None:
            self._unhurried = (*self._unhurried, watch)

    def _unfinished(self) -> "list[tuple[Watch, StepClock[LayerSample]]]":
        """Let go of watches whose model is gone and whose samples are recorded: a run may watch thousands in turn."""
        left = [(watch, clock) for watch, clock in self.watches if not watch.done() or clock.waits()]
        self._unhurried = tuple(watch for watch in self._unhurried if any(watch is one for one, _ in left))
        return left

    def pace(self, samples: int, least: int) -> None:
        """Pace the watches that were begun without an `every`."""
        for watch in self._unhurried:
            watch.pace(samples, least)

    def flush(self) -> None:
        """Record what waits to be worked out or for a step; what is under way from a device is not waited for."""
        for watch, clock in self.watches:
            watch.flush()
            clock.flush()

    def settle(self, timeout: float) -> None:
        """Record the health of every step taken so far; a device is waited for, up to `timeout` seconds."""
        for watch, clock in self.watches:
            watch.settle(timeout)
            clock.flush()

    def close(self) -> None:
        """End all watches and record what they measured."""
        for watch, clock in self.watches:
            watch.close()
            clock.flush()

    def leave(self) -> None:
        """End all watches without waiting for anybody; may be called by the garbage collector."""
        for watch, _ in self.watches:
            watch.leave()


def _record(spool: Spool, listeners: "weakref.ref[Listeners]", sample: "LayerSample", step: int) -> None:
    event = LayerHealth(layers=_names(sample.layers), missing=sample.missing, **sample.signals)
    spool.lane(LayerHealth.family, high_rate=True).append(_KIND, step, sample.time_ns, None, encode(event))
    there = listeners()
    if there:
        there.tell(event, step)


_seen: dict[tuple[str, ...], Names] = {}


def _names(layers: tuple[str, ...]) -> Names:
    names = _seen.get(layers)
    if names is None:
        names = _seen[layers] = Names(layers)
    return names
