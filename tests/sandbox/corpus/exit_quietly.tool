# End without a word.
# Not tried without the sandbox.
import os


def run(c):
    os._exit(0)
