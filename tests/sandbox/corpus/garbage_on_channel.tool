# Write noise where messages are expected.
# Not tried without the sandbox.
import os


def run(c):
    os.write(3, b"\x05\0\0\0hello" + os.urandom(4096))
