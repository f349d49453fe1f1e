# Start threads until something gives.
# Not tried without the sandbox.
import _thread
import time


def run(c):
    count = 0
    while True:
        _thread.start_new_thread(time.sleep, (60,))
        count += 1
        assert count < 64, "threads can be started"
