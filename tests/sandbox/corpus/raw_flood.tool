# Write a gigabyte to standard output and error.
# Not tried without the sandbox.
import os


def run(c):
    for _ in range(1024):
        os.write(1, b"x" * (1 << 20))
        os.write(2, b"x" * (1 << 20))
    raise RuntimeError("done")
