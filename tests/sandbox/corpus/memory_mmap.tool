# Take memory behind the allocator's back.
# Not tried without the sandbox.
import mmap


def run(c):
    return [mmap.mmap(-1, 1 << 30) for _ in range(64)] and None
