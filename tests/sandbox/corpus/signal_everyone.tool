# Signal all that can be signalled, groups and parents too.
# Not tried without the sandbox.
import ctypes
import os


def run(c):
    libc = ctypes.CDLL(None)
    got = [libc.kill(pid, 10) for pid in (-1, 0, 1, os.getppid(), -c["host"], c["host"])]
    got += [libc.syscall(234, c["host"], c["host"], 10), libc.syscall(200, c["host"], 10), libc.syscall(129, c["host"], 10, ctypes.create_string_buffer(128))]
    assert max(got) < 0, got
    raise PermissionError("refused")
