"""The one command, `morphogen`: every verb is a thin call into a room above.

Exit codes: 0 done; 1 the work failed, with one line that says why; 2 the command line is wrong; 3 `verify` found a
difference; 130 interrupted.
"""

import sys


def main() -> None:
    """Run the command line; never show a traceback (MORPHOGEN_DEBUG=1 brings it back)."""
    from .app import run

    sys.exit(run(sys.argv[1:]))


__all__ = ["main"]
