# Learn how large the secret is.
# This is tried without the sandbox too: there it does harm.
import os


def run(c):
    size = os.stat(c["secret"]).st_size
    return open(c["secret"]).read() if size else None
