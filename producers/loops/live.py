"""A run while it is being led: the journal, and what expressions see of it."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from morphogen.schemas import Carried, Event, LoopAssigned, LoopRecorded, LoopViolated, encode
from morphogen.schemas.knowledge.aggregates import Item
from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.evaluate import Scope

from . import stored
from .context import LoopContext, Place, Recorded
from .errors import EmitFailed, Interrupted, InvariantViolated
from .grounding import Grounds, advice_of
from .items import case_of, item_event
from .journal import Journal
from .lanes import step_key

if TYPE_CHECKING:
    from morphogen.schemas.knowledge.program import Program

_FLUSH = 256  # events that may wait for a commit: a long loop that acts on nothing is recorded all the same
_PART = 256 * 1024  # bytes of events that one `loop.recorded` carries
NOWHERE = Place("", 0, "")


class Live:
    """Lead a run: variables and trace as they stand, and the one way to change them, which is through the journal."""

    def __init__(self, program: "Program", journal: Journal, context: LoopContext, *, system: str | None) -> None:
        self.program = program
        self.journal = journal
        self.context = context
        self.place = NOWHERE
        self.stop = threading.Event()
        self.finishing = False  # a service that is asked to stop deals with the event in its hands first
        self.handling: tuple[str, str] | None = None  # of a service: the path in its hands, and what its keys call it
        self._lock = threading.RLock()
        self._emitted: list[Event] = []
        state = journal.state
        self.names: dict[str, Any] = {
            name: stored.get(value, context.bus) for name, value in state.variables.items() if "\0" not in name
        }
        self.items: list[Item] = []
        self.grounds = Grounds(program)
        self.scope: Scope = program.scope({}, (), system=system)
        self.scope = replace(self.scope, names=self.names, items=self.items)
        for item in state.trace:
            self._see(self._item(item.type, item.body, item.time), "")
        context._record = self.record
        context._past = self.past
        context._item = self.item
        context._emit = self._emitted.append
        context._scope = lambda: self.names
        context._place = lambda: self.place
        context._stopped = self.check
        context._advice = lambda: advice_of(program, tuple(journal.state.rules))

    def check(self) -> None:
        """Raise where this process must not go on."""
        if self.stop.is_set() and not self.finishing:
            raise Interrupted(
                f"run {self.journal.run} stopped as asked; `morphogen loop resume {self.journal.run}` goes on"
            )
        self.journal.refuse_if_fenced()

    def key(self, path: str) -> str:
        """Return the idempotency key of a step. In a service it derives from the event, wherever in the log that stands."""
        if self.handling is not None and path.startswith(f"{self.handling[0]}."):
            path = self.handling[1] + path.removeprefix(self.handling[0])
        return step_key(self.journal.run, path)

    def assign(self, path: str, name: str, value: Any, *, frame: str | None = None) -> None:
        """Give a variable a value; one of a procedure's own (`frame`) is kept apart."""
        kept = name if frame is None else f"{frame}\0{name}"
        self.journal.add(LoopAssigned(path=path, name=kept, value=stored.put(value, self.context.bus)))
        if frame is None:
            self.names[name] = value
        self.flush_if_long()

    def frame_names(self, frame: str) -> dict[str, Any]:
        """Return the variables of a procedure call, as the log has them."""
        prefix = f"{frame}\0"
        return {
            name.removeprefix(prefix): stored.get(value, self.context.bus)
            for name, value in self.journal.state.variables.items()
            if name.startswith(prefix)
        }

    def forget(self, keep: int = 1000) -> None:
        """Let go of old trace items, as the state of a service does, and put a checkpoint where enough came to pass."""
        if len(self.items) > 2 * keep:
            del self.items[:-keep]
        if self.journal.state.handled % keep == 0:
            self.journal.checkpoint()

    def flush_if_long(self) -> None:
        """Commit where much has been collected."""
        if self.journal.waiting > _FLUSH:
            self.journal.commit()

    def item(self, case: str, values: Mapping[str, Any], origin: str, source: str) -> Event:
        """Return a trace item, checked; nothing that a dry run makes is measured."""
        if not self.context.live and origin == "measured":
            origin = "projected"
        return item_event(self.program, case, values, origin=origin, source=source or self.place.path)

    def take_emitted(self) -> list[Event]:
        """Return what the step emitted, once."""
        taken = self._emitted[:]
        del self._emitted[: len(taken)]
        return taken

    def settle(self, path: str, events: Sequence[Event], *, kind: str = "") -> None:
        """Collect events of other families and what follows from the trace items among them.

        Raises InvariantViolated, with everything collected, where an invariant turned false.
        """
        told: list[Event] = []
        with self._lock:
            for part in _parts(self.journal.carried(*events)):
                self.journal.add(LoopRecorded(path=path, events=part, kind=kind))
                here: list[Event] = []
                for one in part:
                    if one.type.startswith("trace.") and isinstance(one.body, dict):
                        here.extend(self._see(self._item(one.type, one.body, one.time), path))
                self.journal.add(*here)
                told.extend(here)
        raise_violation(told)

    def hold(self, path: str) -> None:
        """Hold the invariants to the variables as they stand. Raises InvariantViolated."""
        with self._lock:
            told = self.grounds.violations(self.scope, path)
            self.journal.add(*told)
        raise_violation(told)

    def record(self, path: str, events: Sequence[Event]) -> int:
        """Put events into the log, durably, with what follows from them; see LoopContext.record."""
        with self._lock:
            try:
                self.settle(path, events)
            except InvariantViolated:
                self.journal.commit()
                raise
            return self.journal.commit()

    def past(self, families: Sequence[str]) -> Sequence[Recorded]:
        """Return what was recorded; see LoopContext.past."""
        return self.journal.past(families)

    def _item(self, type_name: str, body: Mapping[str, Any], time_ns: int) -> Item:
        case = case_of(self.program, type_name)
        fields = dict(body)
        origin = str(fields.pop("origin", "measured"))
        if case is None or "source" not in self.program.cases[case].fields:
            fields.pop("source", None)
        return Item(case or type_name, fields, self.journal.run, time_ns, origin)

    def _see(self, item: Item, path: str) -> list[Event]:
        self.items.append(item)
        return self.grounds.see(item, self.scope, path)


def _parts(carried: list[Carried]) -> list[list[Carried]]:
    """Return events in parts that each fit into a frame with room to spare."""
    parts: list[list[Carried]] = []
    size = _PART
    for one in carried:
        length = len(encode(one.body)) + 100
        if size + length > _PART:
            parts.append([])
            size = 0
        parts[-1].append(one)
        size += length
    return parts


def raise_violation(told: Sequence[Event]) -> None:
    """Raise InvariantViolated for the first violation among events."""
    for event in told:
        if isinstance(event, LoopViolated):
            raise InvariantViolated(f"invariant {event.invariant} is false: {event.condition}", event.invariant)


def emitted(live: Live, case: str, values: Mapping[str, Any], *, origin: str, source: str) -> Event:
    """Return a checked item. Raises EmitFailed, whatever the declaration's own error is."""
    try:
        return live.item(case, values, origin, source)
    except KnowledgeError as error:
        raise EmitFailed(str(error)) from error
