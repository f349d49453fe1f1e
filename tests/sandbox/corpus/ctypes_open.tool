# Open and read with libc, not Python.
# This is tried without the sandbox too: there it does harm.
import ctypes


def run(c):
    libc = ctypes.CDLL(None)
    buffer = ctypes.create_string_buffer(999)
    handle = libc.open(c["secret"].encode(), 0)
    libc.read(handle, buffer, 998)
    return buffer.value.decode()
