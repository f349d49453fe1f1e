# Abort.
# Not tried without the sandbox.
import os


def run(c):
    os.abort()
