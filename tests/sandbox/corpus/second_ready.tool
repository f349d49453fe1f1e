# Say again that all layers hold.
# Not tried without the sandbox.
import os
import struct


def run(c):
    body = b"\x82\xa1t\xa5ready\xa6layers\x80"
    os.write(3, struct.pack("<I", len(body)) + body)
    return os.read(3, 4096)
