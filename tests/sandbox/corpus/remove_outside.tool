# Remove a file outside.
# This is tried without the sandbox too: there it does harm.
import os


def run(c):
    os.unlink(c["target"])
