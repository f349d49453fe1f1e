# Let whoever is outside trace us, to have its credentials.
# Not tried without the sandbox.
import ctypes


def run(c):
    assert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == -1
    raise PermissionError("refused")
