# Fork for ever.
# Not tried without the sandbox.
import os


def run(c):
    while True:
        os.fork()
