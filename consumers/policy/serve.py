"""A policy as a process: it follows the log, decides for runs that have their policy elsewhere, and sends commands.

A run asks for that by `policy="remote"`; it serves `adapt.<run>`, and its executor holds every command to its own gates
and bounds. What the policy was shown, what it proposed and what the guards said is in the log before the command is.
Events travel in frames, so the server waits until nothing more of an epoch has come for a moment. Frames of a replay
are not acted on.

A decision is owed until its command is sent: through a broker that is away, until the next epoch or its own expiry,
and by the next server where this one is killed.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from morphogen.bus.bodies import whole
from morphogen.bus.commands import send
from morphogen.bus.emit import emit, event_id
from morphogen.bus.errors import (
    BusError,
    CommandError,
    Disconnected,
    LogGap,
    MessageTooLarge,
    NoBroker,
    RequestTimeout,
    StreamMissing,
    StreamReplaced,
)
from morphogen.bus.past import extent, past
from morphogen.bus.reader import read
from morphogen.bus.streams import LOG, ensure_streams, stream_info
from morphogen.schemas import (
    AdaptationFinished,
    AdaptationStarted,
    DecisionProposed,
    EpochMeasured,
    Frame,
    RunFailed,
    RunFinished,
)

from .decide import Decided, Decider
from .errors import PolicyError
from .protocol import Policy
from .standing import FAMILIES, Again, events, frames, standing
from .timeline import Told, timeline

if TYPE_CHECKING:
    from morphogen.bus.connection import Connection

REMOTE = "remote"  # the name under which a run asks for a policy from elsewhere
QUIET = 0.1  # seconds without an event of a run after which an epoch has come whole
_LONGEST = 10  # times that, a decision may be put off
_EXPIRES = 60.0  # seconds after which a command would be about another epoch
_HOLD = 2  # epochs that a command has to show an effect before the run is decided for again
_AGAIN = 1.0  # seconds before what the broker did not take is told again
_OVER = (AdaptationFinished, RunFinished, RunFailed)

_log = logging.getLogger("morphogen.policy")


@dataclass(frozen=True)
class Served:
    """One decision as it was made: for which run, and the id of the command that went out."""

    run: str
    decided: Decided
    command: str


@dataclass(frozen=True)
class _Owed:
    """A decision that is not all told yet: what caused it, the step of its epoch, and until when it is of use."""

    decided: Decided
    cause: str | None
    step: int | None
    until: float  # on the loop's clock


@dataclass
class _Run:
    name: str
    attempt: int
    after: int  # the sequence up to which its past was read
    decider: Decider
    proposed: dict[str, DecisionProposed]  # what a server before this one has proposed, by decision
    pending: list[Told] = field(default_factory=list)
    epoch: int = -1  # the newest that has come
    decided: int = -1  # the newest that was decided for
    owed: _Owed | None = None
    trouble: tuple[int, str] | None = None  # the epoch whose decision was last put off, and why
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
        self._known = 0  # the sequence after which archive and log have all
        self.ready = asyncio.Event()
        """Set once the runs that stand unfinished in the log are known, and new ones are heard of."""

    async def run(self) -> None:
        """Serve until cancelled: the runs that stand unfinished in archive and log, and all that begin.

        A broker that is away is waited for, and a log that was made anew is served as one; the streams are made where
        there are none. Raises Disconnected where the connection is closed for good.
        """
        while True:
            try:
                await ensure_streams(self._conn)
                await self._serve()
            except (StreamReplaced, StreamMissing, LogGap) as error:
                _log.warning("%s; serving the runs of the log that is there now", error)
            except (NoBroker, Disconnected, RequestTimeout) as error:
                _log.warning("%s; the policy waits for the broker", error)
            await asyncio.sleep(_AGAIN)
            await self._until_connected()

    async def _until_connected(self) -> None:
        while True:
            with contextlib.suppress(NoBroker):
                return await self._conn.wait_connected(60.0)

    async def _serve(self) -> None:
        """Serve one log, from its present end on."""
        info = await stream_info(self._conn, LOG)
        self._known = await self._beginning()
        try:
            for name, attempt in (await self._unfinished(info.last_seq)).items():
                await self._begin(name, attempt, info.last_seq, info.now)
            self.ready.set()
            news = read(self._conn, after=info.last_seq, family=FAMILIES, follow=True)
            async for batch in whole(self._conn, news, follow=True):
                for frame in frames(batch):
                    await self._take(frame)
        finally:
            tasks = [run.task for run in self._runs.values() if run.task is not None]
            self._runs.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _beginning(self) -> int:
        """Return the sequence after which archive and log have all."""
        reach = await extent(self._conn, self._conn.settings)
        if reach.live <= reach.archived + 1:
            return 0
        _log.warning(
            "messages %d-%d are in neither archive nor log: runs that began before are not decided for",
            reach.archived + 1,
            reach.live - 1,
        )
        return reach.live - 1

    async def _unfinished(self, end: int) -> dict[str, int]:
        """Return the newest attempt of each run that has asked for a policy and has not ended, by run."""
        found: dict[str, int] = {}
        batches = past(self._conn, self._conn.settings, after=self._known, upto=end, family=("adaptation", "run"))
        async for batch in whole(self._conn, batches):
            for frame in frames(batch):
                for told in events(frame):
                    if isinstance(told.event, AdaptationStarted) and told.event.policy == REMOTE:
                        found[frame.run] = max(frame.attempt, found.get(frame.run, 0))
                    elif isinstance(told.event, _OVER) and found.get(frame.run) == frame.attempt:
                        del found[frame.run]
        return found

    async def _begin(self, name: str, attempt: int, end: int, now: int) -> None:
        """Read the past of a run up to sequence `end`, stored at `now` (unix ns), and decide where an epoch has come."""
        before = self._runs.pop(name, None)
        if before is not None and before.task is not None:
            before.task.cancel()
        young = now - int(_EXPIRES * 1e9)
        found = await standing(self._conn, name, attempt, after=self._known, upto=end, young=young)
        seed = next((told.event.seed for told in found.told if isinstance(told.event, AdaptationStarted)), 0)
        try:
            decider = Decider(self._make(seed), scope=f"{name}#{attempt}")
        except PolicyError as error:
            _log.error("run %s is not decided for: %s", name, error)
            return
        self._runs[name] = run = _Run(name, attempt, end, decider, found.proposed)
        if found.last is not None:
            run.decided = found.last.epoch
            if found.sent[found.last.decision].op != "wait":
                run.sent = found.last.decision, found.last.epoch
        self._arrived(run, found.told)

    async def _take(self, frame: Frame) -> None:
        run = self._runs.get(frame.run)
        told = list(events(frame))
        started = any(isinstance(one.event, AdaptationStarted) and one.event.policy == REMOTE for one in told)
        if started and (run is None or frame.attempt > run.attempt):
            await self._begin(frame.run, frame.attempt, frame.seq, frame.stored)
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
        """Decide once it is quiet, and again where another epoch has come meanwhile; tell it until it is told."""
        while self._runs.get(run.name) is run and (run.epoch > run.decided or run.owed is not None):
            for _ in range(_LONGEST):
                arrivals = run.arrivals
                await asyncio.sleep(self._quiet)
                if arrivals == run.arrivals:
                    break
            try:
                if run.epoch > run.decided:
                    run.owed = self._decide(run)
                if run.owed is not None:
                    await self._tell(run, run.owed)
                    run.owed = None
            except BusError as error:
                await self._put_off(run, error)
            except Exception as error:  # noqa: BLE001  one run's events must not end the service of the others
                _log.error("run %s is not decided for any more: %s: %s", run.name, type(error).__name__, error)
                self._runs.pop(run.name, None)

    def _decide(self, run: _Run) -> _Owed | None:
        """Fold what has come, and decide; None while a command before it may still show its effect."""
        cause, step = None, None
        for told in timeline(run.pending):
            run.decider.take(told.event, told.step)
            if isinstance(told.event, EpochMeasured):
                cause, step = told.id, told.step
        run.pending.clear()
        run.decided = run.epoch
        if run.sent is not None and run.epoch - run.sent[1] < _HOLD:
            return None
        decided = run.decider.decide()
        said = run.proposed.get(decided.decision)
        if said is not None:  # by a server that ended before it had sent the command
            decided = run.decider.decide(Again(said))
        return _Owed(decided, cause, step, asyncio.get_running_loop().time() + _EXPIRES)

    async def _tell(self, run: _Run, owed: _Owed) -> None:
        """Store a decision and send its command. Each has an id of its own: what is told again is not doubled."""
        decided, cause = owed.decided, owed.cause
        for event in decided.events:
            message = f"{decided.decision}-{event.type}"
            await emit(self._conn, event, run=run.name, cause=cause, label="0-0", msg_id=message, step=owed.step)
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
            expires_in=max(1.0, owed.until - asyncio.get_running_loop().time()),
            command_id=decided.decision,
            cause=cause,
        )
        run.sent = None if action.op == "wait" else (decided.decision, decided.observation.epoch)
        if self._told is not None:
            self._told(Served(run.name, decided, command))

    async def _put_off(self, run: _Run, error: BusError) -> None:
        """Wait until a decision may be told again, or give it up where that is of no use."""
        if run.owed is None:
            return
        lasts = run.owed.until - asyncio.get_running_loop().time() > _AGAIN
        if isinstance(error, MessageTooLarge | CommandError) or not lasts:
            _log.error("run %s: the decision of epoch %d could not be told: %s", run.name, run.decided, error)
            run.owed = None
            return
        if run.trouble != (run.decided, str(error)):
            run.trouble = run.decided, str(error)
            _log.warning("run %s: the decision of epoch %d is told again soon: %s", run.name, run.decided, error)
        await asyncio.sleep(_AGAIN)
