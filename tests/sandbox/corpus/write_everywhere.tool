# Overwrite the interpreter's own objects.
# Not tried without the sandbox.
import ctypes


def run(c):
    for thing in (None, True, int, str, run):
        ctypes.memset(id(thing), 0xFF, 64)
    return 1
