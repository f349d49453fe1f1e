"""The one command, `morphogen`: every verb is a thin call into a room above.

Exit codes: 0 done; 1 the work failed, with one line that says why; 2 the command line is wrong; 3 `verify` found a
difference; 130 interrupted.
"""

import atexit
import contextlib
import os
import sys
import threading
from typing import NoReturn


def main() -> None:
    """Run the command line; never show a traceback (MORPHOGEN_DEBUG=1 brings it back)."""
    from .app import run

    _keep_streams()
    _end(run(sys.argv[1:]))


def _end(code: int) -> NoReturn:
    """Exit; at once where a thread is left to itself.

    Such as a query that heeds no interrupt: DuckDB's module would print what it leaks, were it taken down under it.
    """
    atexit._run_exitfuncs()
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if others and all(thread.daemon for thread in others):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, AttributeError):  # a pipe that nobody reads; a stream that is none
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _keep_streams() -> None:
    """Let standard streams that are closed lead nowhere: or what is opened next takes their place, and is written into."""
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one


__all__ = ["main"]
