# Signal the host through a pidfd.
# This is tried without the sandbox too: there it does harm.
import os
import signal


def run(c):
    return signal.pidfd_send_signal(os.pidfd_open(c["host"]), signal.SIGUSR1)
