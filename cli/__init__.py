"""The one command, `morphogen`: every verb is a thin call into a room above.

Exit codes: 0 done; 1 the work failed, with one line that says why; 2 the command line is wrong; 3 `verify` found a
difference; 130 interrupted.
"""

import os
import sys


def main() -> None:
    """Run the command line; never show a traceback (MORPHOGEN_DEBUG=1 brings it back)."""
    from .app import run

    _keep_streams()
    sys.exit(run(sys.argv[1:]))


def _keep_streams() -> None:
    """Let standard streams that are closed lead nowhere: or what is opened next takes their place, and is written into."""
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one


__all__ = ["main"]
