"""`record`: begin a run with nothing configured."""

import logging
import operator
import os
import secrets
import time
from collections.abc import Mapping
from typing import Any

from morphogen.bus.errors import BusError, SettingsError
from morphogen.bus.settings import Settings
from morphogen.bus.spool import Publisher, Spool
from morphogen.schemas import RunStarted, plain

from .ending import guard
from .environment import attempt_of, describe, rank_of
from .run import Run

_CLAIM_PATIENCE = 2.0  # seconds that record() waits for the broker to confirm the attempt
_log = logging.getLogger("morphogen")


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
    are recorded. One that nothing refers to any more is finished then. Raises SettingsError where a setting cannot be
    understood, BusError where no file can be opened any more; without a broker it goes on, and what is recorded waits
    in the spool.
    """
    chosen = settings or Settings.from_environ(url=url, home=None if home is None else os.fspath(home))
    if attempt is None:
        attempt = attempt_of(os.environ)
    run_name = name or os.environ.get("MORPHOGEN_RUN") or f"run-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    number = _whole("rank", rank_of(os.environ) if rank is None else rank, 0)
    if attempt is not None:
        attempt = _whole("attempt", attempt, 1)
    values = plain(config) if config is not None else {}
    try:
        started = RunStarted(config=values if isinstance(values, dict) else {"config": values}, **describe())
        publisher = Publisher(chosen)
    except OSError as error:
        told = f"no run can be begun: {error.strerror}; finish() runs that are over, or raise `ulimit -n`"
        raise BusError(told) from error
    spool = Spool.create(chosen, run=plain(str(run_name)), rank=number, attempt=attempt)
    publisher.add(spool)
    run = Run(spool, publisher, started=started)
    guard(run)
    if not spool.claimed.wait(_CLAIM_PATIENCE):
        where = "memory" if spool.folder is None else "the spool"
        _log.warning("run %s: no broker yet; events wait in %s and are sent when there is one", run.name, where)
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
