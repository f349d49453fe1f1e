"""What a step has in its hands while it runs: the program, the log, the workspace, the tools.

The interpreter makes one `LoopContext` a process and gives it to whatever carries out a step: tools, conversations with a model,
sweeps. What they can count on:

* **`record(*events)` is durable and atomic.** When it returns, all the events of the call are in the log together
  (acknowledged, fsync on) or it has raised. Each then appears once, in its own family, whatever is killed when: the record
  is one frame in the run's own lane, and copies that are missing in the other families are sent at the next resume.
* **`past(*families)` gives back what was recorded**, in log order, by any process that ever led this run, this one included.
  So a long step keeps its own progress: record after each piece of work, read `past` at the start, do what is missing.
* **`emit(...)` waits for the step.** A trace item emitted so goes into the log in one frame with the end of the step. Where a
  step is long, make it with `item(...)` and `record` it at once, along with what it belongs to.
* **Fencing.** Once another process has resumed the run, `record` raises Fenced and nothing of ours reaches the log any more.
  Let Fenced and Interrupted pass through; never swallow them.
* **`call` runs a tool without step events** of its own, from any thread; its result is yours to record. It obeys `live`.
* Everything here may be called from any thread unless it says otherwise. `record` from several threads is serialised.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from morphogen.schemas import Event, Unknown

if TYPE_CHECKING:
    from morphogen.bus.bus import Bus
    from morphogen.schemas.knowledge.program import Program

    from .llm import Backend
    from .tools import Toolbox, ToolResult
    from .workspace import Workspace


class Recorded(NamedTuple):
    """An event that this run recorded: its log sequence, the step that recorded it, and itself."""

    seq: int
    path: str
    event: Event | Unknown


class Place(NamedTuple):
    """Where the loop is: the step's stable path, such as `tune.2[0].1`, its number from 1, its idempotency key.

    The key is the same in every process that runs or re-runs this very step of this run, and no other step's.
    """

    path: str
    number: int
    key: str


def _quiet(done: int, total: int | None, text: str) -> None:
    """Show nothing."""


@dataclass(kw_only=True)
class LoopContext:
    """One run of a loop, as the code that carries out its steps sees it."""

    run: str
    """The run's name, which is its id in the log."""
    loop: str
    """The loop's name in the program."""
    program: "Program"
    workspace: "Workspace"
    """The only folder that tools touch."""
    tools: "Toolbox"
    live: bool
    """Whether to act. Without it nothing outside the log changes: `call` gives plans, marked as plans (`planned`)."""
    backend: "Backend | None" = None
    """Who answers `llm.query`; None where the loop may ask nobody."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What was set on the command line (`--set name=value`)."""
    bus: "Bus | None" = None
    """The bus, for SQL and blobs; None in a run without one (tests of pure parts)."""
    progress: Callable[[int, int | None, str], None] = _quiet
    """Tell a person how far a long step is: (done, total or None, what)."""
    clock: Callable[[], int] = lambda: 0
    """Wall clock in nanoseconds."""

    # Bound by the interpreter; see the methods below for what they do.
    _record: Callable[[str, Sequence[Event]], int] | None = None
    _past: Callable[[Sequence[str]], Sequence[Recorded]] | None = None
    _item: Callable[[str, Mapping[str, Any], str, str], Event] | None = None
    _emit: Callable[[Event], None] | None = None
    _scope: Callable[[], Mapping[str, Any]] | None = None
    _place: Callable[[], Place] | None = None
    _stopped: Callable[[], None] | None = None
    _advice: Callable[[], tuple[str, ...]] | None = None

    @property
    def place(self) -> Place:
        """Where the loop is now."""
        assert self._place is not None
        return self._place()

    @property
    def variables(self) -> Mapping[str, Any]:
        """The loop's variables as they stand: parameters, constants, states, outputs of steps. Do not change it."""
        assert self._scope is not None
        return self._scope()

    @property
    def advice(self) -> tuple[str, ...]:
        """What the program knows in words and cannot execute (hints, text conditions, fired rules): for prompts."""
        return () if self._advice is None else self._advice()

    def record(self, *events: Event) -> int:
        """Put events into the log, together and durably, for the step that runs; return the log sequence.

        Trace items among them ground facts, fire rules and are held to the invariants as emitted ones are; what
        follows from them is in the same frame. Raises Fenced, InvariantViolated (the events are in the log all the
        same), EncodeError, or a BusError where the log cannot be reached.
        """
        assert self._record is not None
        return self._record(self.place.path, events)

    def past(self, *families: str) -> Sequence[Recorded]:
        """Return what this run recorded in these families (all where none is named), oldest first."""
        assert self._past is not None
        return self._past(families)

    def item(self, case: str, values: Mapping[str, Any], *, origin: str = "measured", source: str = "") -> Event:
        """Return a trace item of a case (`"Performance"` or `"System.Performance"`), checked against its declaration.

        Raises EmitFailed that names the field. In a run that is not live, `measured` becomes `projected`.
        """
        assert self._item is not None
        return self._item(case, values, origin, source)

    def emit(self, case: str, values: Mapping[str, Any], *, origin: str = "measured", source: str = "") -> Event:
        """Make a trace item that goes into the log with the end of this step. From the step's own thread only."""
        assert self._emit is not None
        made = self.item(case, values, origin=origin, source=source)
        self._emit(made)
        return made

    def call(self, name: str, arguments: Mapping[str, Any], *, key: str | None = None) -> "ToolResult":
        """Run a tool (`"tool.run"`) with plain values and return its result; nothing is written to the log.

        `key` is the idempotency key that the tool passes on (default: the step's). Raises ToolRefused, ToolFailed.
        """
        return self.tools.call(name, arguments, self, key=key)

    def check(self) -> None:
        """Raise Interrupted where the process was asked to stop, Fenced where the run is another's. Call it often."""
        if self._stopped is not None:
            self._stopped()
