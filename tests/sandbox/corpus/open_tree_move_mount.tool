# The new mount calls: open_tree, fsopen, move_mount.
# Not tried without the sandbox.
import ctypes
import os


def run(c):
    libc = ctypes.CDLL(None, use_errno=True)
    tries = [libc.syscall(428, -100, b"/", 1), libc.syscall(430, b"proc", 0), libc.syscall(429, -1, b"", -100, b"/", 4)]
    for handle in tries:
        if handle >= 0:
            tries.append(os.listdir(handle))
            inner = os.open(c["secret"].lstrip("/"), 0, dir_fd=handle)
            tries.append(os.read(inner, 999).decode())
    return tries
