# Type into the terminal of whoever looks on (TIOCSTI), or link it (TIOCLINUX).
# Not tried without the sandbox.
import ctypes


def run(c):
    libc = ctypes.CDLL(None)
    got = [libc.ioctl(number, request, ctypes.c_char_p(b"x")) for number in (0, 1, 2, 3) for request in (0x5412, 0x541C, 0x5423)]
    assert max(got) < 0, got
    open("/dev/tty", "w").write("x")
