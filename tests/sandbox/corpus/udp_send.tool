# Send a datagram to the host.
# This is tried without the sandbox too: there it does harm.
import socket


def run(c):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return sock.sendto(b"out", ("127.0.0.1", c["udp"]))
