"""Do commands: take them from the work queue, run a handler for each, say in the log what became of it.

A handler that raises is tried again after a pause; a command that is expired, unknown, unreadable, or was
tried as often as it may, goes to the dead letters with the reason. A try is what the log has as accepted, however
often the broker delivers; where the log was trimmed since, each delivery counts as one. The acknowledgement follows
the outcome, and the outcome the effect: whoever is given a command again looks for an outcome in the log before
acting. What remains is the moment between a handler's effect and its outcome: a worker killed there has its handler
run again, so a handler whose effect must never double keys it by `command.id`.
"""

import asyncio
import base64
import contextlib
import inspect
import logging
import os
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from morphogen.schemas import (
    CommandAccepted,
    CommandFinished,
    CommandIssued,
    DeadLetter,
    Event,
    FrameError,
    decode_event,
    decode_frame,
    encode,
    plain,
    sound,
    token,
)

from ..aside import in_thread
from ..emit import emit
from ..errors import BusError, CommandError
from ..streams import COMMANDS, LOG, stream_info
from .outcomes import Held, Outcomes, lease
from .workqueue import Delivery, WorkQueue

if TYPE_CHECKING:
    from ..connection import Connection

Handler: TypeAlias = Callable[["Command"], Any] | Callable[["Command"], Awaitable[Any]]

BACKOFF = (1.0, 5.0, 30.0, 120.0, 600.0)  # seconds before the second try, the third, ...; the last one repeats
_LONGEST_RESULT = 400 * 1024  # bytes
_LONGEST_TEXT = 2000  # characters of an error
_REMEMBERED = 10_000  # commands done lately
_GRACE = 2.0  # seconds that running handlers get when a worker is stopped

_log = logging.getLogger("morphogen.bus")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a handler is given; `delivery` counts its tries from 1, `cause` is the id of the event that asked for it."""

    id: str
    target: str
    name: str
    args: dict[str, Any]
    run: str
    delivery: int
    cause: str
    issuer: str | None = None


@dataclass(frozen=True, slots=True)
class _Order:
    """A command that was read: the event, its run, its own id, how often it may be tried, for how long (ns) it lasts.

    It lasts from when the broker stored it, by the broker's clock: the issuer's says only how long.
    """

    issued: CommandIssued
    run: str
    cause: str
    tries: int
    lasts: int | None


class WorkerStopped(Exception):
    """A handler was broken off by its own worker: somebody else may have the command at once."""


class Worker:
    """Serve one target with `handlers` by command name; `run()` goes on until it is cancelled or `stop()`ped.

    `concurrency` handlers run at once. A sync handler runs in a thread of its own. `max_deliveries` lowers what a
    command asks for. A worker that dies is noticed after `ack_wait` seconds; a living one beats three times as often,
    or every `in_progress_every` seconds. A handler that raises CommandError is not tried again.
    """

    def __init__(
        self,
        conn: "Connection",
        target: str,
        handlers: Mapping[str, Handler],
        *,
        name: str | None = None,
        backoff: Sequence[float] = BACKOFF,
        max_deliveries: int | None = None,
        concurrency: int = 1,
        ack_wait: float = 30.0,
        in_progress_every: float | None = None,
    ) -> None:
        if not target or not handlers or concurrency < 1 or not backoff:
            raise ValueError("a worker needs a target, at least one handler, one slot and one pause")
        self.name = name or f"{socket.gethostname()}-{os.getpid()}"
        self.target = target
        self._conn = conn
        self._handlers = dict(handlers)
        self._backoff = tuple(backoff)
        self._max_deliveries = max_deliveries
        self._concurrency = concurrency
        self._ack_wait = ack_wait
        self._beat = in_progress_every or ack_wait / 3
        self._label = outcome_label(target)
        self._queue = WorkQueue(conn, target, ack_wait=ack_wait)
        self._outcomes = Outcomes(conn, self._label)
        self._running: dict[str, Delivery] = {}
        self._unbegun: dict[str, int] = {}  # the try that the log may have as taken by us, and no handler saw
        self._done: OrderedDict[str, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Take no further command; `run` returns when those in hand are done, or two seconds have passed."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until stopped. Raises Disconnected where the connection is closed for good."""
        queue = self._queue
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                room = self._concurrency - len(self._tasks)
                if room == 0:
                    await asyncio.wait({*self._tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    continue
                delivery = await self._next(queue, room, stopping)
                if delivery is not None:
                    task = asyncio.create_task(self._handle(delivery), name=f"morphogen command {self.target}")
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        finally:
            stopping.cancel()
            await queue.close()
            if self._tasks:
                _, late = await asyncio.wait(self._tasks, timeout=_GRACE)
                for task in late:
                    task.cancel()
                if late:
                    await asyncio.wait(late, timeout=1)
            await queue.leave()

    async def _next(self, queue: WorkQueue, room: int, stopping: asyncio.Task[Any]) -> Delivery | None:
        """Return the next delivery, or None for another look round; what comes while we are ended is handed back."""
        following = asyncio.create_task(queue.next(room))
        taken = False
        try:
            await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if following.done() and not self._stopping.is_set():
                taken = True
                return following.result()
            return None
        finally:
            if not taken:
                following.cancel()
                await asyncio.wait({following})
                if not following.cancelled() and following.exception() is None:
                    queue.put_back(following.result())

    async def _handle(self, delivery: Delivery) -> None:
        try:
            await self._judge(delivery)
        except BusError as error:
            # Not acknowledged, so it comes again; every write below has an id that the log takes once.
            _log.warning("a command for %s is left to be delivered again: %s", self.target, error)
        except Exception as error:  # noqa: BLE001  one command must not end the worker
            _log.error("a command for %s could not be dealt with: %s", self.target, _text(error))

    async def _judge(self, delivery: Delivery) -> None:
        """Decide what to do with a delivery, and have it done."""
        try:
            frame = decode_frame(delivery.data, delivery.log_seq)
            if frame.replay is not None:
                await delivery.done()  # the past, told again: not an order
                return
            if len(frame.records) != 1:
                raise FrameError(f"a command is a frame of one event, this one holds {len(frame.records)}")
            record = frame.records[0]
            issued = decode_event(record.type, record.version, record.body)
            if not isinstance(issued, CommandIssued):
                raise FrameError(f"a {record.type} of version {record.version} is not a command that can be read here")
        except FrameError as error:
            await self._bury_unreadable(delivery, str(error))
            return
        tries = min(issued.max_deliveries, self._max_deliveries or issued.max_deliveries)
        lasts = None if issued.expires is None else issued.expires - record.time
        order = _Order(issued, frame.run, frame.event_id(0), max(1, tries), lasts)
        key, tried = issued.command_id, 0
        if key in self._running:
            self._running[key].reply = delivery.reply
            return
        if key in self._done:
            await delivery.done()
            return
        if delivery.count > 1 or delivery.seq <= self._queue.last_seq:
            done, tried, held = await self._outcomes.look(key, delivery.log_seq)
            if done:
                await delivery.done()
                return
            if held is not None and (wait := await self._lease(held)) > 0:
                await delivery.retry(wait)
                return
            if held is not None and held[:2] == (self.name, self._unbegun.get(key)):
                tried -= 1
            elif tried == 0 and delivery.count > 1 and await self._is_trimmed(delivery):
                tried = delivery.count - 1
        expired = order.lasts is not None and await self._now() - delivery.stored > order.lasts
        if key in self._running or key in self._done:
            await delivery.retry(self._ack_wait)  # begun, or ended, while we asked
        elif expired:
            await self._bury(delivery, order, "it expired before a worker could do it", tried)
        elif tried >= order.tries:
            reason = f"given up after try {tried}: the last worker died, or never said how it went"
            await self._bury(delivery, order, reason, tried)
        elif issued.name not in self._handlers:
            known = ", ".join(sorted(self._handlers))
            reason = f"nobody knows a command {issued.name!r} here: {self.name} knows {known}"
            await self._bury(delivery, order, reason[:_LONGEST_TEXT], tried + 1)
        else:
            self._running[key] = delivery
            try:
                await self._do(delivery, order, tried + 1)
            finally:
                del self._running[key]

    async def _do(self, delivery: Delivery, order: _Order, count: int) -> None:
        """Run the handler for the `count`th time, and write, then acknowledge, what became of it."""
        issued = order.issued
        beats = asyncio.create_task(self._keep(delivery, order, count))
        try:
            self._unbegun[issued.command_id] = count
            accepted = CommandAccepted(command_id=issued.command_id, worker=self.name, delivery=count)
            await self._say(order, accepted, self._message_id(order, count, "accepted"))
            if delivery.generation != self._conn.generation:
                # The broker was lost before it was told, and may have given the command to somebody else.
                _log.debug("command %s is left to be delivered again", issued.command_id)
                return
            del self._unbegun[issued.command_id]
            began = time.perf_counter()
            result, failure = await self._run(delivery, order, count)
            finished = CommandFinished(
                command_id=issued.command_id,
                worker=self.name,
                delivery=count,
                ok=failure is None,
                result=_fitting(result),
                error=None if failure is None else _text(failure),
                duration=time.perf_counter() - began,
            )
            if failure is None:
                self._remember(issued.command_id)
            await self._say(order, finished, self._message_id(order, count, "finished"))
            if failure is None:
                await delivery.done()
            elif count >= order.tries or isinstance(failure, CommandError):
                await self._bury(delivery, order, _text(failure), count)
            else:
                pause = self._backoff[min(count, len(self._backoff)) - 1]
                await delivery.retry(0.0 if isinstance(failure, WorkerStopped) else pause)
        finally:
            beats.cancel()

    async def _run(self, delivery: Delivery, order: _Order, count: int) -> tuple[Any, BaseException | None]:
        """Return the handler's result, or its exception."""
        issued = order.issued
        command = Command(
            id=issued.command_id,
            target=issued.target,
            name=issued.name,
            args=issued.args,
            run=order.run,
            delivery=count,
            cause=order.cause,
            issuer=issued.issuer,
        )
        handler = self._handlers[issued.name]
        if not _is_async(handler):
            return await in_thread(lambda: _outcome_of(handler, command))
        try:
            return await handler(command), None
        except asyncio.CancelledError:
            if self._stopping.is_set() or _cancelling():
                return None, WorkerStopped("its worker was stopped before it was done")
            return None, CommandError("the handler was cancelled")
        except Exception as error:  # noqa: BLE001  whatever a handler raises is its outcome
            return None, error

    async def _keep(self, delivery: Delivery, order: _Order, count: int) -> None:
        """Show that the work goes on: to the broker, and after a loss of it in the log too, for it may have forgotten."""
        generation = self._conn.generation
        while True:
            await asyncio.sleep(self._beat)
            with contextlib.suppress(Exception):
                await delivery.touch()
                if generation != self._conn.generation:
                    accepted = CommandAccepted(command_id=order.issued.command_id, worker=self.name, delivery=count)
                    again = self._message_id(order, count, f"accepted-{self._conn.generation}")
                    await self._say(order, accepted, again)
                    generation = self._conn.generation

    async def _lease(self, held: Held) -> float:
        """Return for how many seconds a command that was taken by another worker is still that worker's."""
        if held.worker == self.name:
            return 0.0  # it is not in our hands, so its taker was a process that is gone
        wait = lease(held, await self._now(), self._ack_wait)
        if self._conn.generation > 1:  # its taker may have lost the broker with us, and shows life from then on
            wait = max(wait, self._queue.began + self._ack_wait - time.monotonic())
        return wait

    async def _is_trimmed(self, delivery: Delivery) -> bool:
        """Tell whether the log has forgotten a command, and what was said of it first."""
        return (await stream_info(self._conn, LOG)).first_seq > delivery.log_seq

    async def _now(self) -> int:
        """Return the broker's time (unix ns), by which it says when it stored something."""
        return (await stream_info(self._conn, COMMANDS)).now

    async def _bury(self, delivery: Delivery, order: _Order, reason: str, deliveries: int) -> None:
        issued = order.issued
        letter = DeadLetter(
            command_id=issued.command_id,
            target=issued.target,
            name=issued.name,
            reason=reason,
            deliveries=deliveries,
            args=issued.args,
            issued=delivery.stored,
        )
        await self._say(order, letter, f"{token(issued.command_id)}-dead")
        await delivery.discard()
        _log.warning("command %s %s went to the dead letters: %s", issued.name, issued.command_id, reason)

    async def _bury_unreadable(self, delivery: Delivery, reason: str) -> None:
        name = f"unreadable-{delivery.seq}-{delivery.stored}"
        letter = DeadLetter(
            command_id=name,
            target=self.target,
            name="",
            reason=reason[:_LONGEST_TEXT],
            deliveries=delivery.count,
            args={"message": base64.b64encode(delivery.data[: _LONGEST_RESULT // 2]).decode()},
            issued=delivery.stored,
        )
        await emit(self._conn, letter, label=command_label(self.target), msg_id=f"{name}-dead")
        await delivery.discard()
        _log.warning("a message for %s went to the dead letters: %s", self.target, reason)

    async def _say(self, order: _Order, event: Event, msg_id: str) -> None:
        label = command_label(self.target) if isinstance(event, DeadLetter) else self._label
        await emit(self._conn, event, run=order.run, cause=order.cause, label=label, msg_id=msg_id)

    def _message_id(self, order: _Order, count: int, what: str) -> str:
        """Return the id of a report: the same however often it is sent, and each worker's its own."""
        return f"{token(order.issued.command_id)}-{count}-{token(self.name)}-{what}"

    def _remember(self, command_id: str) -> None:
        self._done[command_id] = None
        while len(self._done) > _REMEMBERED:
            self._done.popitem(last=False)


async def serve(
    conn: "Connection",
    target: str,
    handlers: Mapping[str, Handler],
    *,
    name: str | None = None,
    backoff: Sequence[float] = BACKOFF,
    max_deliveries: int | None = None,
    concurrency: int = 1,
    ack_wait: float = 30.0,
    in_progress_every: float | None = None,
) -> None:
    """Do the commands for `target` until cancelled; see Worker for what the options mean."""
    worker = Worker(
        conn,
        target,
        handlers,
        name=name,
        backoff=backoff,
        max_deliveries=max_deliveries,
        concurrency=concurrency,
        ack_wait=ack_wait,
        in_progress_every=in_progress_every,
    )
    await worker.run()


def command_label(target: str) -> str:
    """Return the last token of the subject of a command for `target`, and of its dead letters."""
    return f"to-{token(target)}"


def outcome_label(target: str) -> str:
    """Return the last token of the subject of what the workers of `target` report."""
    return f"by-{token(target)}"


def _is_async(handler: Any) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def _outcome_of(handler: Handler, command: Command) -> tuple[Any, BaseException | None]:
    try:
        return handler(command), None
    except BaseException as error:  # noqa: BLE001  SystemExit too: it must not end this thread unheard
        return None, error


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _fitting(result: Any) -> Any:
    """Return a result as an event can carry it."""
    value = plain(result)
    size = len(encode(value))
    return value if size <= _LONGEST_RESULT else f"a result of {size} bytes was left out: return a blob's hash instead"


def _text(error: BaseException) -> str:
    """Return an exception as one line."""
    return f"{type(error).__name__}: {' '.join(sound(error).split())}".removesuffix(": ")[:_LONGEST_TEXT]
