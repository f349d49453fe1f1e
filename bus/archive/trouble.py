"""What to do where the machine does not let us read or write: that says nothing of the archive itself."""

import errno
import os

_ADVICE = {
    errno.EMFILE: "raise `ulimit -n`",
    errno.ENFILE: "all processes of this machine together have too many files open: end some",
    errno.EACCES: "check the permissions",
    errno.EPERM: "check the permissions",
    errno.EROFS: "make it writable",
    errno.ENOMEM: "free some memory",
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EIO: "check the disk",
}


def told(error: OSError) -> str:
    """Return what the system said, and what helps: `too many open files; raise ...`."""
    if error.errno is None:
        return str(error)
    said = os.strerror(error.errno)
    advice = _ADVICE.get(error.errno)
    return f"{said}; {advice}" if advice else said
