# Move a file outside.
# This is tried without the sandbox too: there it does harm.
import os


def run(c):
    os.rename(c["target"], c["marker"])
