# Fork twice, leave the session, write after the call is over.
# This is tried without the sandbox too: there it does harm.
import os
import time


def run(c):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.2)
            with open(c["marker"], "w") as file:
                file.write("still here")
            time.sleep(5)
        os._exit(0)
    time.sleep(0.5)
    return "forked"
