# Map memory that can be both written and run, and run machine code in it.
# Not tried without the sandbox.
import ctypes
import mmap


def run(c):
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    got = [libc.mmap(None, 4096, prot, 0x22, -1, 0) for prot in (7, 5, 4)]
    page = libc.mmap(None, 4096, 3, 0x22, -1, 0)
    changed = libc.mprotect(ctypes.c_void_p(page), 4096, 5)
    keyed = libc.syscall(329, ctypes.c_void_p(page), 4096, 5, 0)
    assert all(address == 2**64 - 1 for address in got) and changed == -1 and keyed == -1, (got, changed, keyed)
    mmap.mmap(-1, 4096, prot=7)
