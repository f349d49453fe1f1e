# Attach to the host.
# This is tried without the sandbox too: there it does harm.
import ctypes


def run(c):
    libc = ctypes.CDLL(None)
    got = [libc.ptrace(request, c["bystander"], 0, 0) for request in (16, 0x4206)]
    if min(got) < 0 and max(got) < 0:
        return got
    with open(c["marker"], "w") as file:
        file.write("attached")
    return got
