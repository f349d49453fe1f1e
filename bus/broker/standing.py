"""How a broker is doing: whether it runs, what is known of it, and whether it is stuck."""

import shutil
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import BusError
from ..settings import Settings
from .process import HOST, probe, read_token
from .state import BrokerFiles, age_s, find_live, is_held, orphans

# What a server writes to its log when it stops storing for good; freeing the disk alone does not bring it back.
_STUCK = ("critical write error", "will be disabled")
_LOG_TAIL = 64 << 10


@dataclass(frozen=True)
class BrokerStatus:
    """What `morphogen status` tells of a broker; `reason` says why it is not running."""

    running: bool
    url: str | None
    pid: int | None = None
    store_bytes: int | None = None
    uptime_s: float | None = None
    version: str | None = None
    reason: str | None = None


def status(settings: Settings) -> BrokerStatus:
    """Say whether the broker runs, and what is known of it; never starts one."""
    if settings.urls:
        return _status_of_urls(settings)
    files = BrokerFiles(settings.broker_dir)
    size = store_bytes(files)
    try:
        state = find_live(files)
        token = read_token(files) if state is not None else None
    except BusError as error:
        return BrokerStatus(running=False, url=None, store_bytes=size, reason=str(error))
    if state is None:
        return BrokerStatus(running=False, url=None, store_bytes=size, reason=_why_down(files))
    uptime = age_s(state.born)
    try:
        info = probe(state.port, token)
    except OSError as error:
        if not state.alive():
            return BrokerStatus(running=False, url=None, store_bytes=size, reason=_why_down(files))
        reason = f"it runs and does not answer ({error}); see {files.log}"
        return BrokerStatus(False, state.url, state.pid, size, uptime, reason=reason)
    return BrokerStatus(True, state.url, state.pid, size, uptime, str(info.get("version")))


def store_bytes(files: BrokerFiles) -> int:
    """Return the bytes that the store takes on its disk."""
    size = 0
    for file in files.store.rglob("*"):
        try:
            size += file.stat().st_blocks * 512 if file.is_file() else 0
        except OSError:  # the broker replaces its files as we look
            continue
    return size


def stuck(settings: Settings, pid: int) -> str | None:
    """Return the line in which the embedded broker says that it stores no more, or None where it never said so."""
    try:
        with BrokerFiles(settings.broker_dir).log.open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - _LOG_TAIL))
            lines = log.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"[{pid}] ") and any(mark in line.lower() for mark in _STUCK):
            return line.partition("[ERR]")[2].strip()
    return None


def has_room(settings: Settings, need: int) -> bool:
    """Tell whether the disk of the store has `need` bytes free."""
    try:
        return shutil.disk_usage(settings.broker_dir).free > need
    except OSError:
        return False


def _why_down(files: BrokerFiles) -> str:
    if is_held(files.alive_lock):
        return "it is starting, or runs on another machine or in another container"
    if lost := orphans(files):
        return f"its files were deleted while it ran (pid {lost[0]}); replace it with `morphogen up`"
    if files.stopped.exists():
        return "stopped by `morphogen down`; start it with `morphogen up`"
    if files.state.exists():
        return f"it ended by itself; start it with `morphogen up`, and see {files.log}"
    return "never started; start it with `morphogen up`"


def _status_of_urls(settings: Settings) -> BrokerStatus:
    reasons = []
    for url in settings.urls:
        parts = urlsplit(url)
        place = f"{parts.hostname}:{parts.port}"
        try:
            info = probe(parts.port or 4222, None, host=parts.hostname or HOST, timeout=2.0)
        except OSError as error:
            reasons.append(f"{place}: {error.strerror or error}")
        else:
            return BrokerStatus(running=True, url=f"{parts.scheme}://{place}", version=str(info.get("version")))
    return BrokerStatus(running=False, url=None, reason="nothing answers at " + "; ".join(reasons))
