"""What stands where a user wants a file: a link stays a link, and a pipe or a device what it is."""

import os
from pathlib import Path


def is_plain(path: Path) -> bool:
    """Tell whether a new file may take the place: nothing is there, or a file, behind links or not.

    Below `/dev` and `/proc` none may: `/dev/stdout` can mean a file, and that one is open already.
    """
    folder = os.path.realpath(path.parent)
    return folder != "/dev" and not folder.startswith("/proc/") and (path.is_file() or not path.exists())


def behind_links(path: Path) -> Path:
    """Return the place that a path means where it is a link, whether something is there or not."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path
