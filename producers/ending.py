"""How runs end that nobody ends by hand: with their process, with a child of multiprocessing, or with their last reference."""

import atexit
import contextlib
import os
import queue
import signal
import sys
import threading
import time
import weakref
from types import FrameType, TracebackType

from .run import Run

_PARTING = 5.0  # seconds at the end of the process for all runs that were dropped before

_live: "weakref.WeakSet[Run]" = weakref.WeakSet()
_dropped: "queue.SimpleQueue[Run | None]" = queue.SimpleQueue()
_terminated = threading.Event()
_guarded: set[str] = set()  # of what is done once a process
_ender: threading.Thread | None = None
_inherited = id(None)
_bootstrap: FrameType | None = None


class Terminated(SystemExit):
    """The process was told to end by SIGTERM; exits with 143, as a shell would show it."""

    def __str__(self) -> str:
        return "SIGTERM"


def guard(run: Run) -> None:
    """See to it that a run ends, and how, whatever becomes of it and of its process."""
    _live.add(run)
    _start_ender()
    run._dropped = _dropped.put  # the one queue that may be put into while garbage is collected
    if "process" not in _guarded:
        _guarded.add("process")
        atexit.register(_end_with_process)
        _watch_exceptions()
    if "signal" not in _guarded and threading.current_thread() is threading.main_thread():
        _guarded.add("signal")
        _watch_sigterm()
    if "child" not in _guarded and "multiprocessing.process" in sys.modules:
        _guarded.add("child")
        _watch_child()


def _watch_exceptions() -> None:
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _end_all(error)
        before(kind, error, trace)

    _hooks.append(hook)
    sys.excepthook = hook


_hooks: list[object] = []


def _watch_sigterm() -> None:
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


def _watch_child() -> None:
    """End with a child of multiprocessing: it asks no `sys.excepthook`, and where it was forked no `atexit` either."""
    from multiprocessing import parent_process, util

    if parent_process() is not None:
        util.Finalize(None, _end_with_child, exitpriority=100)
        _remember_bootstrap()


def _remember_bootstrap() -> None:
    """Keep the frame that runs the child: from Python 3.13 on it alone knows, once it has returned, how that ended."""
    global _bootstrap  # noqa: PLW0603
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and not (frame.f_code.co_name == "_bootstrap" and "exitcode" in frame.f_code.co_varnames):
        frame = frame.f_back
    _bootstrap = frame


def _end_with_child() -> None:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a pool that is closed sends it while its workers end
    error = sys.exc_info()[1]  # it is called while what ends the child is on its way
    if isinstance(error, SystemExit) and error.code not in (None, 0) and id(error.__context__) != _inherited:
        error = error.__context__ or error  # torch's `spawn` makes an exit of the exception
    ended_well = id(error) == _inherited or (isinstance(error, SystemExit) and error.code in (None, 0))
    _end_all(_exit_code() if ended_well else error)
    _end_what_was_dropped()


def _exit_code() -> str | None:
    """Return the code with which this child of multiprocessing is about to end badly, None where there is none yet."""
    code = _bootstrap.f_locals.get("exitcode") if _bootstrap is not None else None
    return f"exit code {code}" if code else None


def _end_with_process() -> None:
    if _bootstrap is not None:  # a child of multiprocessing, where this comes before that
        _end_with_child()
        return
    _end_all(Terminated(143) if _terminated.is_set() else _unseen())
    _end_what_was_dropped()


def _end_what_was_dropped() -> None:
    """See to it that what waits for its end has one: in the log, or in the spool where that takes too long."""
    end = time.monotonic() + _PARTING
    with contextlib.suppress(queue.Empty):
        while (run := _dropped.get_nowait()) is not None:
            _end_one(run, max(0.0, end - time.monotonic()))
    if _ender is not None and _ender.is_alive():
        _dropped.put(None)
        _ender.join(max(0.0, end - time.monotonic()))


def _unseen() -> BaseException | None:
    """Return the exception that ended the program where another hook was put in the place of ours, and told nobody."""
    interactive = hasattr(sys, "ps1") or sys.flags.interactive or "IPython" in sys.modules  # there it ends nothing
    if interactive or sys.excepthook in _hooks:
        return None
    error: BaseException | None = getattr(sys, "last_value", None)
    return error


def _end_all(error: BaseException | str | None) -> None:
    cut_short: BaseException | None = None
    for run in list(_live):
        if run._dropped is None:
            continue  # it ended when it was dropped, whatever has come since: that is told elsewhere
        try:
            if error is None:
                run.finish()
            else:
                run.fail(error)
        except BaseException as interrupt:  # noqa: BLE001  a signal while one run ends is no reason to forget the others
            cut_short = interrupt
    if cut_short is not None:
        raise cut_short


def _start_ender() -> None:
    global _ender  # noqa: PLW0603
    if _ender is None or not _ender.is_alive():
        _ender = threading.Thread(target=_end_dropped, name="morphogen ender", daemon=True)
        try:
            _ender.start()
        except RuntimeError:  # no more threads: what is dropped is ended with the process
            _ender = None


def _end_dropped() -> None:
    while (run := _dropped.get()) is not None:
        _end_one(run, _PARTING)
        del run  # else it would be kept until the next one


def _end_one(run: Run, timeout: float) -> None:
    """End a run that was dropped: well, unless it went with the exception that ends this child (Python 3.13 and later)."""
    told = _exit_code()
    if told is None:
        run.finish(timeout=timeout)
    else:
        run.fail(told, timeout=timeout)


def _begin_anew() -> None:
    """In a forked child, runs of its own are watched anew; the hooks are those of the parent."""
    global _ender, _dropped, _inherited, _bootstrap  # noqa: PLW0603
    _ender, _dropped, _bootstrap = None, queue.SimpleQueue(), None
    _inherited = id(sys.exc_info()[1])  # what the parent was about to handle is no end of the child
    _guarded.discard("child")


os.register_at_fork(after_in_child=_begin_anew)
