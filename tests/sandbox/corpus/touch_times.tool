# Set the times of a file outside to the epoch.
# This is tried without the sandbox too: there it does harm.
import os


def run(c):
    os.utime(c["target"], (0, 0))
