"""The system calls that a tool's interpreter may make once it is sealed, by number, on the processors we know.

What is absent is refused: every way to open, make or name a file or socket, to start or trace a process, to signal, to
make memory executable, to load a program into the kernel, to change a namespace.
"""

from .errors import Unsupported

X86_64 = {
    "read": 0, "write": 1, "close": 3, "fstat": 5, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10, "munmap": 11,
    "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sched_yield": 24, "mremap": 25,
    "madvise": 28, "nanosleep": 35, "getpid": 39, "exit": 60, "gettimeofday": 96, "getrusage": 98, "getuid": 102, "getgid": 104,
    "geteuid": 107, "getegid": 108, "getppid": 110, "sigaltstack": 131, "gettid": 186, "time": 201, "futex": 202,
    "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231,
    "set_robust_list": 273, "getrandom": 318, "rseq": 334,
}  # fmt: skip

AARCH64 = {
    "read": 63, "write": 64, "close": 57, "fstat": 80, "ppoll": 73, "lseek": 62, "mmap": 222, "mprotect": 226,
    "munmap": 215, "brk": 214, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "sched_yield": 124,
    "mremap": 216, "madvise": 233, "nanosleep": 101, "getpid": 172, "exit": 93, "gettimeofday": 169, "getrusage": 165, "getuid": 174,
    "getgid": 176, "geteuid": 175, "getegid": 177, "getppid": 173, "sigaltstack": 132, "gettid": 178, "futex": 98,
    "restart_syscall": 128, "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "exit_group": 94,
    "set_robust_list": 99, "getrandom": 278, "rseq": 293,
}  # fmt: skip

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_TABLES = {"x86_64": X86_64, "aarch64": AARCH64}


def table(machine: str) -> dict[str, int]:
    """Return the allowed calls of a processor, as `platform.machine()` names it."""
    if machine not in _TABLES:
        raise Unsupported(f"the sandbox knows no system calls of {machine!r}; it runs on {' and '.join(_TABLES)}")
    return _TABLES[machine]
