# Leave a file in /dev/shm.
# This is tried without the sandbox too: there it does harm.
import os


def run(c):
    handle = os.open("/dev/shm/" + c["shm"], os.O_CREAT | os.O_RDWR, 0o600)
    return os.write(handle, b"here")
