# Read and leave keys in the kernel's keyrings.
# Not tried without the sandbox.
import ctypes


def run(c):
    libc = ctypes.CDLL(None)
    got = [libc.syscall(248, b"user", b"morphogen", b"x", 1, -3), libc.syscall(250, 0, -3, 1), libc.syscall(249, b"user", b"morphogen", None, -3)]
    assert max(got) < 0, got
    raise PermissionError("refused")
