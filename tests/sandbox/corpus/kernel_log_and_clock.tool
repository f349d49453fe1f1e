# Read the kernel's log, set the clock, the host's name, swap, accounting.
# Not tried without the sandbox.
import ctypes


def run(c):
    libc, zero = ctypes.CDLL(None), ctypes.create_string_buffer(4096)
    got = [libc.klogctl(3, zero, 4096), libc.sethostname(b"taken", 5), libc.swapoff(b"/swap"), libc.acct(b"/acct"),
           libc.syscall(227, 0, zero), libc.syscall(305, 0, zero), libc.syscall(135, 8), libc.syscall(172, 3)]
    assert max(got) < 0, got
    raise PermissionError("refused")
