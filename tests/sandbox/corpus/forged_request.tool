# Ask for a capability that was never given, with hostile arguments.
# Not tried without the sandbox.
import os
import struct


def run(c):
    name = c["secret"].encode()[:30]
    for args in (b"\x90", b"\x91" * 900 + b"\xc0", b"\xdd\xff\xff\xff\xff", b"\x91\xdf\xff\xff\xff\xff"):
        body = b"\x84\xa1t\xa4call\xa4name" + bytes([0xA0 + len(name)]) + name + b"\xa4args" + args + b"\xa6kwargs\x80"
        os.write(3, struct.pack("<I", len(body)) + body)
    return os.read(3, 4096)
