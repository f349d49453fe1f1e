# Start a program without fork.
# This is tried without the sandbox too: there it does harm.
import os


def run(c):
    return os.waitpid(os.posix_spawn("/bin/cp", ["cp", c["secret"], c["marker"]], {}), 0)
