# Announce a frame of four gigabytes.
# Not tried without the sandbox.
import os


def run(c):
    while True:
        os.write(3, b"\xff" * 65536)
