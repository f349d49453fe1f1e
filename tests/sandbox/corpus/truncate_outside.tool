# Truncate a file without opening it.
# This is tried without the sandbox too: there it does harm.
import os


def run(c):
    os.truncate(c["target"], 0)
