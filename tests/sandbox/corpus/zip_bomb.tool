# Unpack a few bytes to many.
# Not tried without the sandbox.
import zlib


def run(c):
    data = b"\0" * (1 << 24)
    for _ in range(3):
        data = zlib.compress(data, 9)
    packed = zlib.compress(b"\0" * (1 << 26), 9)
    return sum(len(zlib.decompress(packed)) for _ in range(1 << 20)) if data else 0
