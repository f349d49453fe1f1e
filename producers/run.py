"""A run as its program sees it: log numbers, watch a model, say what happened.

Nothing here raises into the training loop. What cannot be recorded is said once in the program's log and counted.
"""

import contextlib
import logging
import os
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from morphogen.bus.spool import Counts, Kind, Publisher, Spool
from morphogen.schemas import (
    EncodeError,
    Event,
    LogLine,
    Metrics,
    ProducerClosed,
    RunFailed,
    RunFinished,
    RunStarted,
    encode,
    plain,
    sound,
)

from .artifacts import saved
from .deferred import DeviceScalars
from .health import Health
from .listeners import Listeners
from .refusals import Refusals, shown
from .scalars import MEETS, scalars

if TYPE_CHECKING:
    from morphogen.bus.settings import Settings
    from morphogen.bus.spool import Lane

_METRICS = Kind(Metrics.type, Metrics.version)
_BODY = b"\x81\xa6values"  # a map of one: what stands before the encoded numbers in the body of Metrics

_BY_NAME = object()  # what is given by position may be given by its name, which a field may have as well


class Run:
    """One attempt of a run. Made by `record`; a context manager; safe to use from several threads."""

    def __init__(self, spool: Spool, publisher: Publisher, *, started: RunStarted) -> None:
        self._spool = spool
        self._publisher = publisher
        self._pid = os.getpid()
        self._began = time.monotonic()
        self._step = 0
        self._kinds: dict[type[Event], Kind] = {}
        self._refusals = Refusals(spool.run)
        self._listeners = Listeners(self._refusals)
        self._health = Health(spool, self._listeners, self._refusals)
        self._before_end: tuple[Callable[[], object], ...] = ()
        self._over = False
        self._dropped: Callable[[Run], object] | None = None
        self.event(started)
        self._lane = spool.lane(Metrics.family, high_rate=True)
        self._append_numbers = self._lane.append_numbers
        self._device = DeviceScalars(partial(_append_scalars, self._lane))  # which holds no run: it ends when dropped

    @property
    def name(self) -> str:
        """The name, which is also the id: the same name again is the next attempt."""
        return self._spool.run

    @property
    def attempt(self) -> int:
        """The attempt, from 1; it may rise once, when the broker is first met and knows of others."""
        return self._spool.attempt

    @property
    def rank(self) -> int:
        """The rank of this process."""
        return self._spool.rank

    @property
    def step(self) -> int:
        """The newest step that `log` named or counted; 0 before the first."""
        return self._step

    @property
    def rejected(self) -> int:
        """Values that could not be recorded since the run began."""
        return self._refusals.count

    @property
    def settings(self) -> "Settings":
        """The settings that this run was begun with."""
        return self._spool.settings

    def log(self, metrics: Mapping[str, Any] | None = None, /, *, step: int | None = None, **named: Any) -> None:
        """Record named numbers of a step: `run.log({"loss": loss}, step=step)` or `run.log(loss=loss, step=step)`.

        Numbers are Python's, numpy's and torch's; nested mappings become `outer/inner`; None is left out. Without
        `step` the numbers belong to the step after the last one. Once this returns, a kill does not lose them;
        numbers on an accelerator are copied in the background, without stalling the training stream.
        """
        try:
            values = named if metrics is None else self._joined(metrics, named) if named else metrics
            told = step is not None
            if step is None:
                step = self._step + 1
            elif type(step) is not int and (step := self._whole(step)) is None:
                self._log_slowly(values, None)
                return
            if self._append_numbers(_METRICS, step, time.time_ns(), _BODY, values) >= 0:
                self._step = step
            elif (whole := self._whole(step)) is not None:
                self._step = whole
                self._log_slowly(values, whole)
            else:
                self._log_slowly(values, None)
                return
            for watch, clock in self._health.watches:
                clock.named(step, watch.count, told)
        except Exception as error:  # noqa: BLE001  a training loop is not to die of its telemetry
            self._refusals.say("log", f"{type(error).__name__}: {error}")

    def event(self, event: Event, *, step: int | None = None, cause: str | None = None) -> str | None:
        """Record any event; return its id, which later events may name as their `cause`. None where it was refused."""
        try:
            kind = self._kinds.get(type(event))
            if kind is None:
                if not event.type:
                    raise EncodeError(f"{type(event).__name__} has no type: declare it with type='family.name'")
                kind = self._kinds[type(event)] = Kind(event.type, event.version)
            if step is not None and not (type(step) is int and -(2**63) <= step < 2**63):
                step = self._whole(step)
            if cause is not None and not isinstance(cause, str):
                raise EncodeError(f"its cause is a {type(cause).__name__}: give the id that event() returned")
            lane = self._spool.lane(event.family, high_rate=event.high_rate)
            n = lane.append(kind, step, time.time_ns(), cause, encode(event))
        except Exception as error:  # noqa: BLE001
            self._refusals.say(f"event {getattr(event, 'type', type(event).__name__)}", str(error))
            return None
        if self._listeners:
            self._listeners.tell(event, step)
        return f"{self._spool.writer}.{event.family}.{n}" if n else None

    def line(
        self,
        message: object = _BY_NAME,
        /,
        level: str | int = "info",
        *,
        step: int | None = None,
        cause: str | None = None,
        **fields: Any,
    ) -> None:
        """Record a line of text, and anything else that belongs to it; `level` is a name, or a number of `logging`.

        `cause` is the id of an event that `event` returned.
        """
        try:
            message = fields.pop("message", "") if message is _BY_NAME else message
            name = logging.getLevelName(level).lower() if isinstance(level, int) else sound(level)
            self.event(LogLine(message=sound(message), level=name, fields=plain(fields)), step=step, cause=cause)
        except Exception as error:  # noqa: BLE001  whatever a foreign object does when it is shown
            self._refusals.say("line", f"{type(error).__name__}: {error}")

    def artifact(
        self,
        path: str | os.PathLike[str] = "",
        /,
        name: str | None = None,
        kind: str = "file",
        *,
        cause: str | None = None,
        **metadata: Any,
    ) -> None:
        """Record that a file exists: where it is, its size, and its sha256 where it is a local file up to 1 GiB.

        `cause` is the id of an event that `event` returned.
        """
        try:
            path = path or metadata.pop("path")
            self.event(saved(path, name, kind, metadata, self._refusals.say), cause=cause)
        except Exception as error:  # noqa: BLE001  a path that is none, an object that cannot be shown
            self._refusals.say(f"artifact {type(path).__name__}", f"{type(error).__name__}: {error}")

    def watch(self, model: Any, optimizer: Any, *, every: int | None = None) -> None:
        """Measure the health of every parameterised layer at each `every`-th step of `optimizer`, until the run ends.

        Without `every` that is each step, unless `pace` says how many are needed. See the page on recording for what is
        measured and what it costs.
        """
        try:
            self._health.watch(model, optimizer, every)
        except Exception as error:  # noqa: BLE001
            self._refusals.say("watch", str(error))

    def pace(self, samples: int, least: int) -> None:
        """Measure layers at the next step, and about `samples` times until the next call, `least` steps apart or more.

        For whoever needs their health now and then, such as growth before a decision, and calls this after each. Only
        models that are watched without an `every` go by it.
        """
        self._health.pace(samples, least)

    def subscribe(self, callback: Callable[[Event, int | None], object]) -> Callable[[], None]:
        """Call `callback(event, step)` with every event that is recorded from here on; return what ends that.

        The health of layers is among them, from a thread of its own, about a tenth of a second late (see `settle`);
        what `log` takes is not: it never becomes an event object. What the callback raises is said once.
        """
        return self._listeners.add(callback)

    def before_end(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback()` once when the run ends, however it does, while it still records; return what forgets it."""
        self._before_end = (*self._before_end, callback)

        def forget() -> None:
            self._before_end = tuple(one for one in self._before_end if one is not callback)

        return forget

    def settle(self, timeout: float = 5.0) -> None:
        """Record the health of every step that has been taken: what waits to be worked out, and what a device sends.

        Steps that no `log` has named yet go on from those named so far, or by the optimizer's own count.
        """
        self._health.settle(timeout)

    def flush(self, timeout: float = 30.0) -> bool:
        """Wait until the log has all that was recorded so far; False where it has not within `timeout` seconds."""
        self._health.flush()
        self._device.flush(timeout)
        return self._publisher.flush(timeout)

    def stats(self) -> dict[str, Counts]:
        """Return what became of the events of each family: produced, acknowledged, dropped, refused."""
        return self._spool.stats()

    def finish(self, *, timeout: float = 5.0) -> None:
        """End the run well; idempotent. Waits up to `timeout` seconds; what is left is sent by the next start."""
        self._end(RunFinished(duration=self._age()), timeout)

    def fail(self, error: BaseException | str, *, timeout: float = 5.0) -> None:
        """End the run as failed, with the exception or a reason; idempotent."""
        if isinstance(error, BaseException):
            event = RunFailed(
                error=sound(type(error).__name__),
                message=shown(lambda: str(error))[:2000],
                traceback=shown(lambda: "".join(traceback.format_exception(error)))[-20_000:],
                duration=self._age(),
            )
        else:
            told = shown(lambda: str(error))
            event = RunFailed(error=told, message=told, duration=self._age())
        self._end(event, timeout)

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
            self.finish()
        else:
            self.fail(error)

    def __copy__(self) -> "Run":
        return self

    def __deepcopy__(self, memo: object) -> "Run":
        return self  # a model that holds its run may be copied

    def __reduce__(self) -> NoReturn:
        told = (
            f"run {self.name!r} cannot be pickled: save a model without it; a process that is spawned records the same"
        )
        told += " name with a rank of its own: morphogen.record(name, attempt=..., rank=...)"
        raise TypeError(told)

    def __del__(self) -> None:
        dropped = getattr(self, "_dropped", None)
        if dropped is not None and not self._over:
            self._dropped = None
            self._health.leave()
            dropped(self)  # nobody can say any more how it ended, but what it holds must be given back

    def __repr__(self) -> str:
        return f"<run {self.name!r} attempt {self.attempt} rank {self.rank}>"

    def _age(self) -> float:
        return time.monotonic() - self._began

    def _end(self, event: Event, timeout: float) -> None:
        if self._over:
            return
        self._over = True
        if os.getpid() == self._pid:
            for callback in self._before_end:
                try:
                    callback()
                except Exception as error:  # noqa: BLE001  the run ends all the same
                    self._refusals.say("before_end", f"{type(error).__name__}: {error}")
        self._health.close()
        self._device.close(timeout)
        if os.getpid() == self._pid:  # a forked child is not the run
            self.event(event)
            stats = self._spool.stats()
            produced = {family: counts.produced for family, counts in stats.items()}
            dropped = {family: counts.dropped for family, counts in stats.items() if counts.dropped}
            self.event(ProducerClosed(produced=produced, dropped=dropped))
        self._publisher.close(timeout)

    def _whole(self, step: Any) -> int | None:
        """Return a step of any integral kind as an int; None for what is none, whose numbers are kept all the same."""
        with contextlib.suppress(Exception):  # anybody's number
            number = step.item() if hasattr(step, "item") else step  # numpy's and torch's
            whole = int(number)  # of a text, a Decimal or a variable of Keras too
            if (isinstance(number, str) or whole == number or whole == float(number)) and -(2**63) <= whole < 2**63:
                return whole
        told = "it is no whole number of 64 bits; what was logged with it is kept without a step"
        self._refusals.say(shown(lambda: f"step {step!r:.100}"), told)
        return None

    def _joined(self, metrics: Mapping[Any, Any], named: dict[str, Any]) -> dict[Any, Any]:
        for name in [name for name in named if name in metrics]:
            self._refusals.say(f"metric {name!r}", MEETS)
        return {**metrics, **{name: value for name, value in named.items() if name not in metrics}}

    def _log_slowly(self, values: Mapping[Any, Any], step: int | None) -> None:
        numbers, refused, far = scalars(values)
        for name, reason in refused.items():
            self._refusals.say(f"metric {name!r}", reason)
        if numbers:
            _append_scalars(self._lane, numbers, step, time.time_ns())
        if far:
            self._device.take(far, step, time.time_ns())


def _append_scalars(lane: "Lane", numbers: Mapping[str, int | float], step: int | None, time_ns: int) -> None:
    lane.append(_METRICS, step, time_ns, None, _BODY + encode(numbers))
