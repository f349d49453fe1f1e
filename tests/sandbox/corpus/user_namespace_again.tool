# Make a user namespace, to have every capability in it.
# This is tried without the sandbox too: there it does harm.
import ctypes


def run(c):
    libc = ctypes.CDLL(None)
    if libc.unshare(0x10000000) != 0:
        return "refused"
    with open(c["marker"], "w") as file:
        file.write("in a new namespace")
