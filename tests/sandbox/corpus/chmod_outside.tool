# Change the mode of a file outside.
# This is tried without the sandbox too: there it does harm.
import os


def run(c):
    os.chmod(c["target"], 0o777)
