# Connect to a socket that listens on the host's loopback.
# This is tried without the sandbox too: there it does harm.
import socket


def run(c):
    with socket.create_connection(("127.0.0.1", c["tcp"]), timeout=2) as connection:
        connection.sendall(b"out")
        return "connected"
