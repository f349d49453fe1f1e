# Mount proc, bind the root, remount it writable.
# Not tried without the sandbox.
import ctypes
import os


def run(c):
    libc = ctypes.CDLL(None)
    got = [
        libc.mount(b"proc", b"/", b"proc", 0, None), libc.mount(b"/", b"/", None, 4096, None),
        libc.mount(b"none", b"/", None, 32, None), libc.mount(b"none", b"/", b"tmpfs", 0, None), libc.umount2(b"/", 2),
    ]
    assert max(got) < 0, got
    return os.listdir("/")
