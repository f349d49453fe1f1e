# Sleep in small pieces, catch whatever comes, never return.
# Not tried without the sandbox.
import time


def run(c):
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            continue
