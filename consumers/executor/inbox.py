"""Orders from outside: commands for `adapt.<run>`, kept until the training loop is at the end of an epoch.

A thread of its own serves the work queue; the training loop only ever takes what lies there. A command's result is what
became of its action, or it fails with the reason; it is not tried again, for by then the epoch is another one.
"""

import asyncio
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from morphogen.bus.bus import Bus
from morphogen.bus.commands import Command
from morphogen.bus.errors import BusError, CommandError
from morphogen.bus.settings import Settings
from morphogen.schemas import Action

OPS = ("wait", "germinate", "set_alpha", "advance", "prune", "fossilize")
_AGAIN = 5.0  # seconds before another try to reach the broker
_AT_ONCE = 32  # commands that may lie here
_REMEMBERED = 1000

_log = logging.getLogger("morphogen")


def target(run: str) -> str:
    """Return the target that a run serves."""
    return f"adapt.{run}"


@dataclass(frozen=True)
class Order:
    """A command, the action that it asks for, and where its result goes."""

    command: str
    cause: str  # the id of the event that issued it
    action: Action
    decision: str | None
    result: "Future[dict[str, Any]]"

    def done(self, result: Mapping[str, Any]) -> None:
        """Tell what was done."""
        if not self.result.done():
            self.result.set_result(dict(result))

    def refused(self, reason: str) -> None:
        """Tell why it was not done."""
        if not self.result.done():
            self.result.set_exception(CommandError(reason))


def read_action(op: str, args: Mapping[str, Any]) -> Action:
    """Return the action of a command. Raises CommandError naming the argument that does not fit."""
    values: dict[str, Any] = {}
    for name, kind in (("slot", str), ("blueprint", str), ("ramp", str), ("alpha", float), ("steps", int)):
        value = args.get(name)
        if value is None:
            continue
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise CommandError(f"{op}: {name} must be a {kind.__name__}, not {value!r:.100}")
        values[name] = value
    return Action(op=op, **values)


class Inbox:
    """Serves `adapt.<run>` from now until `close`. A broker that cannot be reached is tried again; training goes on."""

    def __init__(self, settings: Settings, run: str) -> None:
        self._settings, self._run = settings, run
        self._orders: deque[Order] = deque()
        self._known: OrderedDict[str, Future[dict[str, Any]]] = OrderedDict()
        self._came = threading.Event()
        self._over = threading.Event()
        self.serving = threading.Event()
        """Set while commands can arrive."""
        self._thread = threading.Thread(target=self._serve, name="morphogen inbox", daemon=True)
        self._thread.start()

    def take(self, timeout: float = 0.0) -> list[Order]:
        """Return what has come, in its order; where nothing has, wait up to `timeout` seconds for it."""
        if not self._orders and timeout > 0:
            self._came.clear()
            if not self._orders:
                self._came.wait(timeout)
        taken = []
        while self._orders:
            taken.append(self._orders.popleft())
        return taken

    def close(self, timeout: float = 5.0) -> None:
        """Serve no more; what lies here is refused. May be called again."""
        self._over.set()
        for order in self.take():
            order.refused(f"run {self._run} is over")
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _serve(self) -> None:
        said = False
        while not self._over.is_set():
            try:
                with Bus.open(self._settings, name="inbox") as bus:
                    handlers = {op: self._handler(op) for op in OPS}
                    with bus.serve(target(self._run), handlers, concurrency=_AT_ONCE) as serving:
                        self.serving.set()
                        while not self._over.is_set() and not serving.wait(0.2):
                            pass
            except BusError as error:
                if not said:
                    said = True
                    _log.warning(
                        "run %s takes no commands until the broker answers; it tries again: %s", self._run, error
                    )
            except Exception as error:  # noqa: BLE001  told; a thread must not end unheard
                _log.error("run %s takes no commands any more: %s: %s", self._run, type(error).__name__, error)
                return
            finally:
                self.serving.clear()
            self._over.wait(_AGAIN)

    def _handler(self, op: str) -> Callable[[Command], Any]:
        async def handle(command: Command) -> dict[str, Any]:
            result = self._known.get(command.id)
            if result is None:
                action, decision = read_action(op, command.args), command.args.get("decision")
                result = self._known[command.id] = Future()
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
                told = decision if isinstance(decision, str) else None
                self._orders.append(Order(command.id, command.cause, action, told, result))
                self._came.set()
                if self._over.is_set():
                    raise CommandError(f"run {self._run} is over")
            return await asyncio.wrap_future(result)

        return handle
