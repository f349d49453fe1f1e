"""Service loops: handlers of events of the log, each event handled once, whatever is killed when.

The place of the last handled event is in the run's own lane, in the same frame as the last step that the handling took. A service that
comes back reads on from there. A handling that was cut off is gone on with like any other part of a program, under the
same idempotency keys, which derive from the event's id.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from morphogen.bus.streams import LOG
from morphogen.schemas import EncodeError, LoopHandled, Signal, Unknown
from morphogen.schemas.knowledge.errors import EvaluateError, KnowledgeError
from morphogen.schemas.knowledge.tree import Handler, ServiceLoop

from .errors import Interrupted, InvariantViolated, LoopError, StepFailed, one_line
from .interpreter import Frame, Interpreter, Returned
from .items import fields_of
from .live import Live

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus, Seen

_GLANCE = 0.1  # seconds between looks at the stop button
_AHEAD = 1000  # events that are read ahead


def serve(live: Live, loop: ServiceLoop, interpreter: Interpreter, say: Callable[[str], None]) -> None:
    """Handle events until the process is asked to stop (then Interrupted is raised, and a resume goes on).

    `say` is told once, when the service is ready to handle.

    A new service begins at the end that the log has when it is first started. Events of replays are passed over, and so are
    those that the service writes itself, and what lies in the log twice.
    """
    bus = live.context.bus
    if bus is None:
        raise LoopError(f"service {loop.name} needs a bus")
    handlers = {_event_type(live, handler): handler for handler in loop.handlers}
    if live.journal.state.place == (0, 0):
        last = bus.stream_info(LOG).last_seq
        live.journal.commit(LoopHandled(seq=last, idx=-1, event_id="", handler="", path="begin"))
    families = sorted({kind.partition(".")[0] for kind, _ in handlers})
    own = live.journal.writer
    waits = ", ".join(handler.event for handler in loop.handlers)
    say(f"service {loop.name} handles {waits} as run {live.journal.run}; Ctrl-C stops it")
    with _Following(bus, live.journal.state.place[0] - 1, families) as events:
        for seen in events:
            if live.stop.is_set():
                raise Interrupted(
                    f"service {loop.name} stopped; `morphogen loop resume {live.journal.run}` goes on", at_rest=True
                )
            live.check()
            if seen is None:
                continue
            place = (seen.frame.seq, seen.idx)
            if place <= live.journal.state.place or seen.frame.replay is not None or seen.frame.writer == own:
                continue
            handler = _handler(handlers, seen)
            if handler is None or seen.id in live.journal.state.recent:
                continue
            live.finishing = True
            try:
                handle(live, interpreter, handler, seen)
            finally:
                live.finishing = False
                live.handling = None


def handle(live: Live, interpreter: Interpreter, handler: Handler, seen: "Seen") -> None:
    """Run a handler on one event. A step that fails ends the handling, not the service; the log says so."""
    path = f"{handler.event}#{seen.frame.seq}.{seen.idx}"
    live.handling = (path, f"{handler.event}#{seen.id}")
    began = time.monotonic_ns()
    values = parameters(handler, seen)
    frame = Frame(path, {**values, **live.frame_names(path)})
    error: str | None = None
    try:
        interpreter.block(handler.body, path, handler.event, frame)
    except Returned:
        pass
    except InvariantViolated:
        raise
    except (StepFailed, EncodeError, EvaluateError) as failed:
        error = one_line(failed)
    live.journal.commit(
        LoopHandled(
            seq=seen.frame.seq,
            idx=seen.idx,
            event_id=seen.id,
            handler=handler.event,
            path=path,
            ok=error is None,
            error=error,
            duration_ns=time.monotonic_ns() - began,
        )
    )
    live.forget()


def parameters(handler: Handler, seen: "Seen") -> dict[str, Any]:
    """Return what a handler's parameters are: fields of the event by name, or, for a single one that is no field, all of it.

    All of it means its fields, and `id`, `run`, `step` and `type` where no field has that name.
    """
    fields = _fields(seen)
    whole = {"id": seen.id, "run": seen.frame.run, "step": seen.record.step, "type": seen.record.type, **fields}
    names = handler.parameters
    if len(names) == 1 and names[0] not in fields:
        return {names[0]: whole}
    return {name: whole.get(name) for name in names}


def _fields(seen: "Seen") -> dict[str, Any]:
    event = seen.event
    if isinstance(event, Signal):
        return dict(event.values)
    values = event.fields() if isinstance(event, Unknown) else fields_of(event)
    return {str(name): value for name, value in values.items()} if isinstance(values, Mapping) else {"value": values}


def _event_type(live: Live, handler: Handler) -> tuple[str, str | None]:
    """Return the event type that a handler waits for, and the signal's name where it waits for a signal."""
    from morphogen.schemas.knowledge.cases import type_of

    try:
        info = live.program.case(handler.event)
    except KnowledgeError:
        if "." in handler.event:
            return handler.event, None
        return Signal.type, handler.event
    return type_of(info), None


def _handler(handlers: Mapping[tuple[str, str | None], Handler], seen: "Seen") -> Handler | None:
    name = seen.event.name if isinstance(seen.event, Signal) else None
    return handlers.get((seen.record.type, name)) or handlers.get((seen.record.type, None))


class _Following:
    """Events of some families from a place on, for ever; None every so often, so that the reader can look around."""

    def __init__(self, bus: "Bus", after: int, families: list[str]) -> None:
        self._bus = bus
        self._after = max(0, after)
        self._families = families
        self._queue: queue.Queue[Any] = queue.Queue(_AHEAD)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, name="morphogen service", daemon=True)

    def __enter__(self) -> Iterator["Seen | None"]:
        self._thread.start()
        return self._events()

    def __exit__(self, *exception: object) -> None:
        self._over.set()

    def _events(self) -> Iterator["Seen | None"]:
        while True:
            try:
                found = self._queue.get(timeout=_GLANCE)
            except queue.Empty:
                yield None
                continue
            if isinstance(found, BaseException):
                raise found
            yield found

    def _read(self) -> None:
        try:
            for seen in self._bus.past(after=self._after, family=self._families, follow=True):
                while not self._over.is_set():
                    try:
                        self._queue.put(seen, timeout=_GLANCE)
                        break
                    except queue.Full:
                        continue
                if self._over.is_set():
                    return
        except BaseException as error:  # noqa: BLE001  the reader of the queue raises it
            if not self._over.is_set():
                self._queue.put(error)
