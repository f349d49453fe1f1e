# Crash the interpreter.
# Not tried without the sandbox.
import ctypes


def run(c):
    return ctypes.string_at(0)
