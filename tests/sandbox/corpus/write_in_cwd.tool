# Use the current folder as a store between calls.
# Not tried without the sandbox.
import os


def run(c):
    found = []
    for path in ("x", "./x", "/x", "/tmp/x", "/var/tmp/x", "/dev/shm/x", "/run/x", os.path.expanduser("~/x")):
        try:
            with open(path, "w") as file:
                file.write("here")
            found.append(path)
        except OSError:
            pass
    assert not found, found
    raise PermissionError("refused")
