"""The embedded broker: a nats-server on the loopback, shared by every local process and owned by none."""

import contextlib
import os
import shutil
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from ..errors import BrokerFailed, BrokerStopped, NoBroker
from ..settings import Settings
from .process import find_binary, free_port, last_words, prepare, probe, read_token, spawn, write_config
from .standing import BrokerStatus, status
from .state import (
    BrokerFiles,
    BrokerState,
    claim_store,
    find_live,
    holders,
    is_broker,
    is_held,
    orphans,
    process_born,
    process_worked,
    read_state,
    start_lock,
    write_private,
    write_state,
)

__all__ = ["BrokerStatus", "Endpoint", "down", "ensure", "restart", "status"]

_LITTLE_SPACE = 256 << 20
_STARTS = 5
_LETTING_GO = 1.0
_BUSY = 6  # times its patience, who stops a broker waits for one that is at work
_REFUSALS = 10  # of a token, within a second: whoever starts a broker anew may be about to write another one


@dataclass(frozen=True)
class Endpoint:
    """Where a broker is and what it wants to see: addresses, token, credentials file, pid when embedded."""

    urls: tuple[str, ...]
    token: str | None
    creds: Path | None
    embedded: bool
    pid: int | None


def ensure(settings: Settings, start: bool = True, *, background: bool = False, deadline: float = 30.0) -> Endpoint:
    """Return the broker to use; find the embedded one, or start it when `start` is set, and wait until it answers.

    `background` is for a client that reconnects by itself: it does not undo the user's `down`.
    Raises BrokerMissing, BrokerStopped, BrokerFailed, or NoBroker (it does not run and `start` is off).
    """
    if settings.urls:
        return Endpoint(settings.urls, settings.token, settings.creds, embedded=False, pid=None)
    files = BrokerFiles(settings.broker_dir)
    end = time.monotonic() + deadline
    while True:
        state = find_live(files)
        if state is None:
            _refuse_stopped(files, background)
            if not start:
                raise NoBroker(f"no broker is running for {settings.home}; start one with `morphogen up`")
            state = _find_or_start(files, background, end)
        if _await_answer(files, state, end):
            return Endpoint((state.url,), read_token(files), None, embedded=True, pid=state.pid)
        if time.monotonic() > end:
            raise BrokerFailed(f"the broker keeps ending right after its start: see {files.log}")


def down(settings: Settings, *, deadline: float = 10.0) -> bool:
    """Stop the embedded broker and keep it stopped until somebody starts it again; tell whether it was running.

    It is asked first, and killed where it has done nothing for `deadline` seconds, or is not done in six times that: it
    writes down the place of every consumer, and that of a thousand takes it ten seconds. Raises BrokerFailed where it is not ours to stop.
    """
    if settings.urls:
        raise BrokerFailed("the broker of MORPHOGEN_URL is not ours to stop; unset it to stop the embedded one")
    files = BrokerFiles(settings.broker_dir)
    if not files.folder.is_dir():
        return _end_orphans(files, deadline)
    with start_lock(files, deadline):
        pids = _seen(files)
        write_private(files.stopped, "")
        lost = _end_orphans(files, deadline)
        for pid in pids:
            _terminate(pid, deadline)
    return lost or bool(pids)


def restart(settings: Settings, *, pid: int, deadline: float = 30.0) -> None:
    """Stop the embedded broker with this pid, if it is still the one, and start a fresh one on its store.

    For one that runs and stores no more: a server whose disk was full stays so after the disk has room again.
    """
    files = BrokerFiles(settings.broker_dir)
    end = time.monotonic() + deadline
    with start_lock(files, deadline):
        state = find_live(files)
        if files.stopped.exists() or state is None or state.pid != pid:
            return
        _terminate(state.pid, 5.0)
        _start(files, end)


def _refuse_stopped(files: BrokerFiles, background: bool) -> None:
    if background and files.stopped.exists():
        raise BrokerStopped("the broker was stopped by `morphogen down`; start it again with `morphogen up`")


def _find_or_start(files: BrokerFiles, background: bool, end: float) -> BrokerState:
    with start_lock(files, end - time.monotonic()):
        _refuse_stopped(files, background)
        files.stopped.unlink(missing_ok=True)
        state = find_live(files)
        if state is not None:
            return state
        _end_orphans(files, 5.0)
        _free_store(files)
        return _start(files, end)


def _start(files: BrokerFiles, end: float) -> BrokerState:
    binary = find_binary()
    token = prepare(files)
    before = read_state(files)
    port = free_port(before.port if before is not None else None)
    feature_flags = True
    for _ in range(_STARTS):
        lock = claim_store(files)
        if lock is None:
            raise BrokerFailed(f"the store {files.store} is in use; wait a moment and run `morphogen up` again")
        log_start = files.log.stat().st_size if files.log.exists() else 0
        try:
            write_config(files, port, token, feature_flags=feature_flags)
            pid = spawn(binary, files, lock)
        except OSError as error:
            raise BrokerFailed(f"cannot write to {files.folder}: {error.strerror}; free some space") from error
        finally:
            os.close(lock)
        born = process_born(pid)
        if born is not None:
            state = BrokerState(socket.gethostname(), pid, born, port, time.time_ns())
            write_state(files, state)
            if _await_ready(state, token, end):
                return state
        words = last_words(files, log_start)
        if "address already in use" in words:
            port = free_port()
        elif "feature_flags" in words and feature_flags:
            feature_flags = False  # an older server does not know them, and has no version 2 to switch off
        else:
            break
    raise BrokerFailed(f"nats-server ended at once: {words}{_space_hint(files)}; see {files.log}")


def _await_ready(state: BrokerState, token: str, end: float) -> bool:
    """Wait until a new broker answers; False when its process ended. Leave a slow one alone: it may recover a log."""
    pause = 0.002
    while time.monotonic() < end:
        with contextlib.suppress(PermissionError, OSError):
            probe(state.port, token, timeout=0.25)
            if state.alive():
                return True
        if not state.alive():
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    return state.alive()


def _await_answer(files: BrokerFiles, state: BrokerState, end: float) -> bool:
    """Wait until a broker accepts the token; False when its process ended."""
    pause, refused = 0.005, 0
    while True:
        try:
            probe(state.port, read_token(files), timeout=min(1.0, max(0.05, end - time.monotonic())))
        except PermissionError as error:
            refused += 1
            if refused == _REFUSALS and state.alive():
                raise BrokerFailed(
                    f"the broker (pid {state.pid}) does not take the token in {files.config}: "
                    f"run `morphogen down`, then `morphogen up`"
                ) from error
            reason = str(error)
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            return True
        if not state.alive():
            return False
        if time.monotonic() > end:
            raise BrokerFailed(
                f"the broker (pid {state.pid}) runs and does not answer on port {state.port} ({reason}); "
                f"it may be recovering a large log: see {files.log}, or stop it with `morphogen down`"
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def _running(files: BrokerFiles) -> list[int]:
    """Return the pids of the broker, also where its state was lost."""
    if not is_held(files.alive_lock):
        return []
    state = find_live(files)
    return [state.pid] if state is not None else [p for p in holders(files.alive_lock) if is_broker(p, files)]


def _seen(files: BrokerFiles) -> list[int]:
    """Return the pids of the broker. Raises BrokerFailed where its store is held by one that cannot be seen from here."""
    end = time.monotonic() + _LETTING_GO
    while not (found := _running(files)) and is_held(files.alive_lock) and not holders(files.alive_lock):
        if time.monotonic() >= end:
            raise _elsewhere(files)
        time.sleep(0.01)
    return found


def _elsewhere(files: BrokerFiles) -> BrokerFailed:
    return BrokerFailed(
        f"the store {files.store} is in use by a broker on another machine or in another container; "
        f"set MORPHOGEN_URL to reach it, or MORPHOGEN_HOME to another folder"
    )


def _end_orphans(files: BrokerFiles, deadline: float) -> bool:
    """End what still runs although its files were deleted: nobody finds it, and it may write to a store with another."""
    found = orphans(files)
    for pid in found:
        _terminate(pid, deadline)
    return bool(found)


def _free_store(files: BrokerFiles) -> None:
    """Make the store claimable: end a broker whose state was lost, and drop a lock that no broker holds."""
    end = time.monotonic() + _LETTING_GO
    while is_held(files.alive_lock):
        found = holders(files.alive_lock)
        for pid in found:
            if is_broker(pid, files):
                _terminate(pid, 5.0)
        # A process that was just killed lets go of its files a little after it is gone.
        if time.monotonic() < end:
            time.sleep(0.01)
            continue
        if not found:
            raise _elsewhere(files)
        # A process forked while a broker was started keeps a copy of its lock: the broker is gone, the file is not.
        files.alive_lock.unlink(missing_ok=True)


def _terminate(pid: int, deadline: float) -> None:
    born = process_born(pid)
    for name, patience in ((signal.SIGTERM, deadline), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, name)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise BrokerFailed(f"the broker (pid {pid}) belongs to another user; ask them to stop it") from error
        if _ends(pid, born, patience):
            return
    raise BrokerFailed(f"the broker (pid {pid}) does not end, not even when killed; its disk may hang")


def _ends(pid: int, born: int | None, patience: float) -> bool:
    """Wait for the end of a process that was told to end, longer while it is at work; tell whether it came."""
    now = time.monotonic()
    end, longest = now + patience, now + _BUSY * patience
    worked = process_worked(pid)
    while time.monotonic() < end:
        if born is None or process_born(pid) != born:
            return True
        time.sleep(0.005)
        if (ticks := process_worked(pid)) != worked:
            worked, end = ticks, min(time.monotonic() + patience, longest)
    return False


def _space_hint(files: BrokerFiles) -> str:
    free = shutil.disk_usage(files.folder).free
    return f" (the disk has {free >> 20} MiB left)" if free < _LITTLE_SPACE else ""
