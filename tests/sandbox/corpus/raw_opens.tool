# Every system call that opens a file, by number (x86_64 and aarch64).
# This is tried without the sandbox too: there it does harm.
import ctypes


def run(c):
    libc = ctypes.CDLL(None)
    buffer = ctypes.create_string_buffer(999)
    path = ctypes.c_char_p(c["secret"].encode())
    how = ctypes.c_char_p(bytes(24))
    tries = [libc.syscall(257, -100, path, 0), libc.syscall(437, -100, path, how, 24), libc.syscall(2, path, 0)]
    for handle in tries:
        if handle >= 0:
            libc.read(handle, buffer, 998)
    return [tries, buffer.value.decode()]
