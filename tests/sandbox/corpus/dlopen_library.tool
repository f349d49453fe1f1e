# Load a library that was not there before.
# Not tried without the sandbox.
import ctypes


def run(c):
    return repr(ctypes.CDLL("libcurl.so.4")) + repr(ctypes.CDLL("libm.so.6"))
