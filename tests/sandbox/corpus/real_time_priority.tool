# Take the processor from everybody.
# Not tried without the sandbox.
import os


def run(c):
    done = []
    for step in (lambda: os.nice(-20), lambda: os.sched_setscheduler(0, 1, os.sched_param(50)), lambda: os.sched_setaffinity(0, {0}), lambda: os.setpriority(0, 0, -20)):
        try:
            step()
            done.append(step)
        except (OSError, ValueError):
            pass
    assert not done, done
    raise PermissionError("refused")
