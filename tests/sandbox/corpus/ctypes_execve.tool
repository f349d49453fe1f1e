# Replace the process by a shell.
# This is tried without the sandbox too: there it does harm.
import ctypes


def run(c):
    libc = ctypes.CDLL(None)
    argv = (ctypes.c_char_p * 4)(b"/bin/sh", b"-c", f"cp {c['secret']} {c['marker']}".encode(), None)
    return libc.execve(b"/bin/sh", argv, (ctypes.c_char_p * 1)(None))
