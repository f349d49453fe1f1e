# Connect to an abstract Unix socket, which has no path to protect.
# This is tried without the sandbox too: there it does harm.
import socket


def run(c):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + c["abstract"])
        return sock.send(b"out")
