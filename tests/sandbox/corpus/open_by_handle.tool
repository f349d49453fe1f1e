# Open by handle, which needs no path.
# Not tried without the sandbox.
import ctypes


def run(c):
    libc = ctypes.CDLL(None)
    handle = ctypes.create_string_buffer(136)
    handle[0:4] = (128).to_bytes(4, "little")
    mount = ctypes.c_int()
    named = libc.name_to_handle_at(-100, c["secret"].encode(), handle, ctypes.byref(mount), 0)
    opened = libc.open_by_handle_at(3, handle, 0)
    buffer = ctypes.create_string_buffer(999)
    libc.read(opened, buffer, 998)
    return [named, opened, buffer.value.decode()]
