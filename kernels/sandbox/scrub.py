"""Takes the host's paths out of texts that leave the sandbox or enter it."""

import os
import re
import sys
import tempfile
from functools import cache


@cache
def _paths(cwd: str) -> re.Pattern[str]:
    found = {
        sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.realpath(sys.executable), os.path.expanduser("~"),
        os.path.dirname(os.__file__), tempfile.gettempdir(), cwd,
    }  # fmt: skip
    prefixes = sorted((path for path in found if len(path) > 1), key=len, reverse=True)
    return re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, prefixes))})(?:/[^\s'\"<>:,;)]*)?(?!\w)")


def scrub(text: str) -> str:
    """Replace each path that begins like one of this host's own by `<path>`."""
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = "/"
    return _paths(cwd).sub("<path>", text)
