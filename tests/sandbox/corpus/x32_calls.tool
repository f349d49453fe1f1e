# The same calls through the x32 entry of x86_64.
# Not tried without the sandbox.
import ctypes


def run(c):
    libc = ctypes.CDLL(None)
    buffer = ctypes.create_string_buffer(999)
    handle = libc.syscall(0x40000000 | 2, ctypes.c_char_p(c["secret"].encode()), 0)
    libc.read(handle, buffer, 998)
    return [handle, buffer.value.decode()]
