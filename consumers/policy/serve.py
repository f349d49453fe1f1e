"""A policy as a process: it follows the log, decides for runs that have their policy elsewhere, and sends commands.

A run asks for that by `policy="remote"`; it serves `adapt.<run>`, and its executor holds every command to its own gates
and bounds. What the policy was shown, what it proposed and what the guards said is in the log before the command is.
Events travel in frames, so the server waits until nothing more of an epoch has come for a moment. Frames of a replay
are not acted on.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from morphogen.bus.commands import send
from morphogen.bus.emit import emit, event_id
from morphogen.bus.errors import BusError
from morphogen.bus.reader import Message, read
from morphogen.bus.streams import LOG, stream_info
from morphogen.schemas import (
    AdaptationFinished,
    AdaptationStarted,
    DecisionProposed,
    EpochMeasured,
    Event,
    Frame,
    FrameError,
    RunFailed,
    RunFinished,
    decode_event,
    decode_frame,
)

from .decide import Decided, Decider
from .errors import PolicyError
from .protocol import Policy
from .timeline import Told, timeline

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

REMOTE = "remote"  # the name under which a run asks for a policy from elsewhere
FAMILIES = ("adaptation", "slot", "health", "run")
QUIET = 0.1  # seconds without an event of a run after which an epoch has come whole
_LONGEST = 10  # times that, a decision may be put off
_EXPIRES = 60.0  # seconds after which a command would be about another epoch
_HOLD = 2  # epochs that a command has to show an effect before the run is decided for again
_OVER = (AdaptationFinished, RunFinished, RunFailed)

_log = logging.getLogger("morphogen.policy")


@dataclass(frozen=True)
class Served:
    """One decision as it was made: for which run, and the id of the command that went out."""

    run: str
    decided: Decided
    command: str


@dataclass
class _Run:
    name: str
    attempt: int
    after: int  # the sequence up to which its past was read
    decider: Decider
    known: set[str]  # decisions that a server before this one has made
    pending: list[Told] = field(default_factory=list)
    epoch: int = -1  # the newest that has come
    decided: int = -1  # the newest that was decided for
    sent: tuple[str, int] | None = None  # the decision and the epoch of a command that has shown no effect yet
    arrivals: int = 0
    task: "asyncio.Task[None] | None" = None


class PolicyServer:
    """Decides for every run that asks for it, with one policy of its own each: `make(seed of the run)`.

    `told` is called with each decision once its command is stored.
    """

    def __init__(
        self,
        conn: "Connection",
        make: Callable[[int], Policy],
        *,
        quiet: float = QUIET,
        told: Callable[[Served], None] | None = None,
    ) -> None:
        self._conn, self._make, self._quiet, self._told = conn, make, quiet, told
        self._runs: dict[str, _Run] = {}
        self.ready = asyncio.Event()
        """Set once the runs that stand unfinished in the log are known, and new ones are heard of."""

    async def run(self) -> None:
        """Serve until cancelled: the runs that stand unfinished in the log, and all that begin."""
        end = (await stream_info(self._conn, LOG)).last_seq
        try:
            for name, attempt in (await self._unfinished(end)).items():
                await self._begin(name, attempt, end)
            self.ready.set()
            async for batch in read(self._conn, after=end, family=FAMILIES, follow=True):
                for frame in _frames(batch):
                    await self._take(frame)
        finally:
            tasks = [run.task for run in self._runs.values() if run.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _unfinished(self, end: int) -> dict[str, int]:
        """Return the newest attempt of each run that has asked for a policy and has not ended, by run."""
        found: dict[str, int] = {}
        async for batch in read(self._conn, upto=end, family=("adaptation", "run")):
            for frame in _frames(batch):
                for told in _told(frame):
                    if isinstance(told.event, AdaptationStarted) and told.event.policy == REMOTE:
                        found[frame.run] = max(frame.attempt, found.get(frame.run, 0))
                    elif isinstance(told.event, _OVER) and found.get(frame.run) == frame.attempt:
                        del found[frame.run]
        return found

    async def _begin(self, name: str, attempt: int, end: int) -> None:
        """Read the past of a run up to sequence `end`, and decide where an epoch has come."""
        before = self._runs.pop(name, None)
        if before is not None and before.task is not None:
            before.task.cancel()
        past: list[Told] = []
        known: set[str] = set()
        async for batch in read(self._conn, upto=end, run=name, family=(*FAMILIES, DecisionProposed.family)):
            for frame in _frames(batch):
                if frame.family == DecisionProposed.family:
                    known.update(
                        told.event.decision for told in _told(frame) if isinstance(told.event, DecisionProposed)
                    )
                elif frame.attempt == attempt:
                    past += _told(frame)
        seed = next((told.event.seed for told in past if isinstance(told.event, AdaptationStarted)), 0)
        try:
            decider = Decider(self._make(seed), scope=f"{name}#{attempt}")
        except PolicyError as error:
            _log.error("run %s is not decided for: %s", name, error)
            return
        self._runs[name] = run = _Run(name, attempt, end, decider, known)
        self._arrived(run, past)

    async def _take(self, frame: Frame) -> None:
        run = self._runs.get(frame.run)
        told = list(_told(frame))
        started = any(isinstance(one.event, AdaptationStarted) and one.event.policy == REMOTE for one in told)
        if started and (run is None or frame.attempt > run.attempt):
            await self._begin(frame.run, frame.attempt, frame.seq)
        elif run is not None and frame.attempt == run.attempt and frame.seq > run.after:
            self._arrived(run, told)

    def _arrived(self, run: _Run, told: list[Told]) -> None:
        """Keep what has come; see to it that the newest epoch is decided for soon."""
        run.pending += told
        run.arrivals += 1
        for one in told:
            if isinstance(one.event, EpochMeasured):
                run.epoch = max(run.epoch, one.event.epoch)
            elif run.sent is not None and getattr(one.event, "decision", None) == run.sent[0]:
                run.sent = None
            elif isinstance(one.event, _OVER):
                self._runs.pop(run.name, None)
                return
        if run.epoch > run.decided and (run.task is None or run.task.done()):
            run.task = asyncio.create_task(self._decide_soon(run))

    async def _decide_soon(self, run: _Run) -> None:
        """Decide once it is quiet, and again where another epoch has come meanwhile."""
        while self._runs.get(run.name) is run and run.epoch > run.decided:
            for _ in range(_LONGEST):
                arrivals = run.arrivals
                await asyncio.sleep(self._quiet)
                if arrivals == run.arrivals:
                    break
            try:
                await self._decide(run)
            except BusError as error:
                _log.error("run %s: a decision could not be told: %s", run.name, error)
            except Exception as error:  # noqa: BLE001  one run's events must not end the service of the others
                _log.error("run %s is not decided for any more: %s: %s", run.name, type(error).__name__, error)
                self._runs.pop(run.name, None)

    async def _decide(self, run: _Run) -> None:
        cause, step = None, None
        for told in timeline(run.pending):
            run.decider.take(told.event, told.step)
            if isinstance(told.event, EpochMeasured):
                cause, step = told.id, told.step
        run.pending.clear()
        run.decided = run.epoch
        if run.sent is not None and run.epoch - run.sent[1] < _HOLD:
            return
        decided = run.decider.decide()
        if decided.decision in run.known:
            return
        for event in decided.events:
            message = f"{decided.decision}-{event.type}"
            await emit(self._conn, event, run=run.name, cause=cause, label="0-0", msg_id=message, step=step)
            cause = event_id(message, event.family)
        action = decided.action
        args = {
            name: value
            for name in ("slot", "blueprint", "alpha", "ramp", "steps")
            if (value := getattr(action, name)) is not None
        }
        command = await send(
            self._conn,
            f"adapt.{run.name}",
            action.op,
            {**args, "decision": decided.decision},
            run=run.name,
            issuer=f"policy {decided.proposed.policy}",
            max_deliveries=2,
            expires_in=_EXPIRES,
            command_id=decided.decision,
            cause=cause,
        )
        run.sent = None if action.op == "wait" else (decided.decision, run.epoch)
        if self._told is not None:
            self._told(Served(run.name, decided, command))


def _frames(batch: Iterable[Message]) -> Iterator[Frame]:
    """Yield what the first process of a run has recorded itself."""
    for message in batch:
        try:
            frame = decode_frame(message.data, message.seq, message.stored)
        except FrameError as error:
            _log.warning("%s", error)
            continue
        if frame.replay is None and frame.rank == 0:
            yield frame


def _told(frame: Frame) -> Iterator[Told]:
    for index, record in enumerate(frame.records):
        event = decode_event(record.type, record.version, record.body)
        if isinstance(event, Event):
            yield Told(frame.family, record.n, record.time, record.step, event, frame.event_id(index))
