# Send a signal to the host.
# This is tried without the sandbox too: there it does harm.
import os
import signal


def run(c):
    return os.kill(c["host"], signal.SIGUSR1)
