"""System calls by number, through `_ctypes` alone: `ctypes` itself would double the time to start.

All calls hold the interpreter lock, as `os.fork` does; there is one thread here, and `fork` must find it so.
"""

import _ctypes
import posix


class Long(_ctypes._SimpleCData):  # type: ignore[type-arg]  # not a generic at run time
    """A C `long`: the width of every argument of a system call."""

    _type_ = "l"


class Char(_ctypes._SimpleCData):  # type: ignore[type-arg]
    """A C `char`; an array of them holds what a pointer points at."""

    _type_ = "c"


class Call(_ctypes.CFuncPtr):
    """A C function that returns a `long` and sets `errno`."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = Long


class Hook(_ctypes.CFuncPtr):
    """A C function of the interpreter that takes and returns nothing."""

    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI
    _restype_ = None


_PROGRAM = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # None is the program itself
_syscall = Call(_ctypes.dlsym(_PROGRAM, "syscall"))
_before_fork = Hook(_ctypes.dlsym(_PROGRAM, "PyOS_BeforeFork"))
_after_fork_parent = Hook(_ctypes.dlsym(_PROGRAM, "PyOS_AfterFork_Parent"))
_after_fork_child = Hook(_ctypes.dlsym(_PROGRAM, "PyOS_AfterFork_Child"))

X86_64 = posix.uname().machine == "x86_64"
CLONE, PRCTL, CAPSET, UNSHARE, MOUNT, UMOUNT, PIVOT_ROOT, SETHOSTNAME = (
    (56, 157, 126, 272, 165, 166, 155, 170) if X86_64 else (220, 167, 91, 97, 40, 39, 41, 161)
)
LANDLOCK_CREATE, LANDLOCK_RESTRICT = 444, 446
SIGCHLD = 17


def memory(data: bytes) -> "tuple[int, object]":
    """Return the address of a copy of `data`, and what keeps it alive."""
    array = (Char * len(data)).from_buffer_copy(data)
    return _ctypes.addressof(array), array


def call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call: integers as they are, bytes by address (with a final zero). OSError where it fails."""
    kept = []
    words = []
    for argument in arguments:
        if isinstance(argument, int):
            words.append(Long(argument))
        elif argument is None:
            words.append(Long(0))
        else:
            address, array = memory(argument + b"\0")
            kept.append(array)
            words.append(Long(address))
    _ctypes.set_errno(0)
    result = int(_syscall(Long(number), *words))
    if result < 0:
        code = _ctypes.get_errno()
        raise OSError(code, posix.strerror(code))
    return result


def fork(namespaces: int) -> int:
    """Fork into new namespaces: `os.fork`, which knows no flags, with flags."""
    _before_fork()
    try:
        child = call(CLONE, namespaces | SIGCHLD, 0, 0, 0, 0)
    except OSError:
        _after_fork_parent()
        raise
    if child == 0:
        _after_fork_child()
    else:
        _after_fork_parent()
    return child
