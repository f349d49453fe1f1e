# Read the environment of every process there is to be seen.
# This is tried without the sandbox too: there it does harm.
import os


def run(c):
    found = [repr(dict(os.environ))]
    for name in ("self", "1", str(c["host"]), str(os.getppid())):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                found.append(file.read().decode(errors="replace"))
        except OSError as error:
            found.append(type(error).__name__)
    return found
