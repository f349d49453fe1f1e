# Give the secret a second name.
# This is tried without the sandbox too: there it does harm.
import os


def run(c):
    os.link(c["secret"], c["marker"])
