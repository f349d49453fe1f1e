# Start a program.
# This is tried without the sandbox too: there it does harm.
import subprocess


def run(c):
    return subprocess.run(["cp", c["secret"], c["marker"]], check=False).returncode
