# Try every descriptor that might have been left open, as a file and as a folder.
# Not tried without the sandbox.
import os


def run(c):
    found = []
    for number in range(2000):
        if number == 3:
            continue
        for way in (
            lambda n=number: os.pread(n, 999, 0).decode(),
            lambda n=number: os.read(os.open("../" * 12 + c["secret"].lstrip("/"), 0, dir_fd=n), 999).decode(),
            lambda n=number: repr(os.fstat(n)) if n > 3 else "",
        ):
            try:
                got = way()
                if got:
                    found.append((number, got))
            except (OSError, ValueError):
                pass
    assert not [n for n, _ in found if n > 3], found
    return found
