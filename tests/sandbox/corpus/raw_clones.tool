# Clone, clone3, fork and vfork by number.
# Not tried without the sandbox.
import ctypes
import os
import time


def run(c):
    libc, me, found = ctypes.CDLL(None), os.getpid(), []
    for call in ((56, 17, 0, 0, 0, 0), (435, ctypes.create_string_buffer(88), 88), (57,), (58,), (56, 0x50f00, 0, 0, 0, 0)):
        got = libc.syscall(*call)
        found.append(got)
        if got >= 0 or os.getpid() != me:
            time.sleep(60)
    assert max(found) < 0, found
    raise RuntimeError(repr(found))
