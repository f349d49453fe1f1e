# Plant a symbolic link.
# This is tried without the sandbox too: there it does harm.
import os


def run(c):
    os.symlink(c["secret"], c["marker"])
