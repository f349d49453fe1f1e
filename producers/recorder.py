"""`record`: begin a run with nothing configured, and see that it ends properly however its process does."""

import atexit
import logging
import operator
import os
import secrets
import signal
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Any

from morphogen.bus.errors import SettingsError
from morphogen.bus.settings import Settings
from morphogen.bus.spool import Publisher, Spool
from morphogen.schemas import RunStarted, plain

from .environment import attempt_of, describe, rank_of
from .run import Run

_CLAIM_PATIENCE = 2.0  # seconds that record() waits for the broker to confirm the attempt
_log = logging.getLogger("morphogen")
_live: "weakref.WeakSet[Run]" = weakref.WeakSet()
_guarded = False


class Terminated(SystemExit):
    """The process was told to end by SIGTERM; exits with 143, as a shell would show it."""

    def __str__(self) -> str:
        return "SIGTERM"


def record(
    name: str | None = None,
    *,
    config: Mapping[str, Any] | object | None = None,
    url: str | None = None,
    home: str | os.PathLike[str] | None = None,
    rank: int | None = None,
    attempt: int | None = None,
    settings: Settings | None = None,
) -> Run:
    """Begin a run, or the next attempt of the run of that name.

    `name` is the run's identity (default: MORPHOGEN_RUN, else a new name from date and chance); `config` is anything
    that can be shown as nested values; `url` names a broker (default: MORPHOGEN_URL, else the embedded one, started
    if need be); `home` is the data folder. `rank` and `attempt` come from the launcher's environment unless given.

    The run ends by `finish()`, at the end of its `with` block, or with the process: an uncaught exception and SIGTERM
    are recorded. Raises SettingsError where a setting cannot be understood; without a broker it goes on, and
    what is recorded waits in the spool.
    """
    chosen = settings or Settings.from_environ(url=url, home=None if home is None else os.fspath(home))
    run_name = name or os.environ.get("MORPHOGEN_RUN") or f"run-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    spool = Spool.create(
        chosen,
        run=plain(str(run_name)),
        rank=rank_of(os.environ) if rank is None else _whole("rank", rank, 0),
        attempt=attempt_of(os.environ) if attempt is None else _whole("attempt", attempt, 1),
    )
    publisher = Publisher(chosen)
    publisher.add(spool)
    values = plain(config) if config is not None else {}
    started = RunStarted(config=values if isinstance(values, dict) else {"config": values}, **describe())
    run = Run(spool, publisher, started=started)
    _live.add(run)
    _guard()
    if not spool.claimed.wait(_CLAIM_PATIENCE):
        _log.warning("run %s: no broker yet; events wait in the spool and are sent when there is one", run.name)
    return run


def _whole(name: str, value: object, least: int) -> int:
    """Return a number that every event of the run will carry. Raises SettingsError where readers could not take it."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not least <= number < 2**31:
        raise SettingsError(f"{name} is {value!r}; give an integer from {least}, or leave it out")
    return number


def _guard() -> None:
    """Record how the process ends; once a process."""
    global _guarded  # noqa: PLW0603
    if _guarded:
        return
    _guarded = True
    atexit.register(_finish_all)
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        for run in list(_live):
            run.fail(error)
        before(kind, error, trace)

    sys.excepthook = hook
    if threading.current_thread() is threading.main_thread():
        _guard_sigterm()


def _guard_sigterm() -> None:
    before = signal.getsignal(signal.SIGTERM)
    owner = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if callable(before):
            before(number, frame)  # the program's own handler decides what comes next
            return
        if os.getpid() == owner:
            _terminated.set()
        raise Terminated(128 + number)  # unwinds the program, so that its own clean-up runs as well

    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGTERM, terminate)


_terminated = threading.Event()


def _finish_all() -> None:
    for run in list(_live):
        if _terminated.is_set():
            run.fail(Terminated(143))
        else:
            run.finish()
