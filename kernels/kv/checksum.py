"""The checksum of a payload: XXH3-128 over the XXH3-128 of each MiB, so that several threads can share the work.

A corrupted byte changes it; it is no defence against someone who can write both the bytes and the checksum.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from .errors import LLAMA, MissingExtra

CHUNK = 1 << 20  # bytes of one leaf
SIZE = 16  # bytes of a checksum
KIND = "xxh3-128-mib"
SHARED = 8 * CHUNK  # from here on, threads pay


def xxh3(data: "bytes | memoryview") -> bytes:
    """Return the XXH3-128 of some bytes, 16 bytes. Raises MissingExtra without xxhash."""
    return bytes(_xxhash().xxh3_128_digest(data))


def checksum(data: memoryview) -> bytes:
    """Return the checksum of a payload, 16 bytes: `xxh3(xxh3(MiB 0) || xxh3(MiB 1) || ...)`.

    The last bytes are read first: of a buffer that was just written they are still in the processor's cache, and after
    it the first ones are, which llama.cpp reads next.
    """
    leaves = -(-data.nbytes // CHUNK)
    threads = min(4, processors()) if data.nbytes >= SHARED else 1
    digests: list[bytes] = [b""] * leaves

    def work(places: Iterable[int]) -> None:
        for place in places:
            digests[place] = xxh3(data[place * CHUNK : (place + 1) * CHUNK])

    if threads == 1:
        work(range(leaves - 1, -1, -1))
    else:
        jobs = [_threads().submit(work, range(leaves - 1 - first, -1, -threads)) for first in range(1, threads)]
        work(range(leaves - 1, -1, -threads))
        for job in jobs:
            job.result()
    return xxh3(b"".join(digests))


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(3, thread_name_prefix="kv-checksum")


@cache
def _xxhash() -> Any:
    try:
        import xxhash
    except ImportError as error:
        raise MissingExtra(f"the checksum of a KV state needs xxhash: {LLAMA}") from error
    return xxhash


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a forked child has no threads of its parent's
