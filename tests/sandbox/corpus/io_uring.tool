# Open files through io_uring, past the filter's eyes.
# Not tried without the sandbox.
import ctypes


def run(c):
    libc = ctypes.CDLL(None, use_errno=True)
    got = libc.syscall(425, 8, ctypes.create_string_buffer(120))
    assert got == -1, "io_uring can be set up"
    raise PermissionError("refused")
