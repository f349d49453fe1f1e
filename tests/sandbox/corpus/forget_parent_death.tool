# Clear the signal that comes when the parent dies, and loop.
# Not tried without the sandbox.
import ctypes


def run(c):
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
    while True:
        pass
