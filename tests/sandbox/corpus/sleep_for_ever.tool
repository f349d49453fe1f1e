# One long sleep.
# Not tried without the sandbox.
import time


def run(c):
    time.sleep(10**6)
