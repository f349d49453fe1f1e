# Read the memory of the host.
# This is tried without the sandbox too: there it does harm.
import ctypes


def run(c):
    libc = ctypes.CDLL(None)
    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
    buffer = ctypes.create_string_buffer(64)
    local = Vector(ctypes.addressof(buffer), 64)
    remote = Vector(c["address"], 64)
    got = libc.process_vm_readv(c["host"], ctypes.byref(local), 1, ctypes.byref(remote), 1, 0)
    return [got, buffer.raw.decode("latin-1")]
