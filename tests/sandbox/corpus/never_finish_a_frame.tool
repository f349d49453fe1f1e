# Announce a frame, and let the host wait.
# Not tried without the sandbox.
import os
import time


def run(c):
    os.write(3, b"\x10\0\0\0\x81")
    time.sleep(10**6)
