# Hang up.
# Not tried without the sandbox.
import os
import time


def run(c):
    os.close(3)
    time.sleep(10**6)
