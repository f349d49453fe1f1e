# Make a fifo and a device.
# This is tried without the sandbox too: there it does harm.
import os


def run(c):
    os.mkfifo(c["marker"])
