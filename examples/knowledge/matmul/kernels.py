"""The matrix product that `matmul.mk` tunes: C = A B in float64, from three plain loops to blocks that fit the caches.

`measure` is called by the sweep, in a process that stays warm, so each variant is compiled once. Every call checks its result
against NumPy's and times NumPy beside it, so that a busy machine slows both alike.
"""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit


def ijk(a, b, c, first, last, tile_i, tile_j, tile_k):  # type: ignore[no-untyped-def]
    """Sum each element of C by itself: B is read down its columns, a cache line for every number."""
    for i0 in range(first, last, tile_i):
        for j0 in range(0, b.shape[1], tile_j):
            for k0 in range(0, a.shape[1], tile_k):
                end_k = min(k0 + tile_k, a.shape[1])
                for i in range(i0, min(i0 + tile_i, last)):
                    for j in range(j0, min(j0 + tile_j, b.shape[1])):
                        total = c[i, j]
                        for k in range(k0, end_k):
                            total += a[i, k] * b[k, j]
                        c[i, j] = total


def jki(a, b, c, first, last, tile_i, tile_j, tile_k):  # type: ignore[no-untyped-def]
    """Fill a column of C at a time, as Fortran would, but on rows: nothing is read in the order in which it lies."""
    for i0 in range(first, last, tile_i):
        for j0 in range(0, b.shape[1], tile_j):
            for k0 in range(0, a.shape[1], tile_k):
                end_k = min(k0 + tile_k, a.shape[1])
                for j in range(j0, min(j0 + tile_j, b.shape[1])):
                    for k in range(k0, end_k):
                        x = b[k, j]
                        for i in range(i0, min(i0 + tile_i, last)):
                            c[i, j] += a[i, k] * x


def ikj(a, b, c, first, last, tile_i, tile_j, tile_k):  # type: ignore[no-untyped-def]
    """Fill a row of C at a time: the inner loop walks along rows of B and C, and becomes vector instructions."""
    for i0 in range(first, last, tile_i):
        for j0 in range(0, b.shape[1], tile_j):
            end_j = min(j0 + tile_j, b.shape[1])
            for k0 in range(0, a.shape[1], tile_k):
                for i in range(i0, min(i0 + tile_i, last)):
                    row = c[i, j0:end_j]
                    for k in range(k0, min(k0 + tile_k, a.shape[1])):
                        x, other = a[i, k], b[k, j0:end_j]
                        for j in range(row.size):
                            row[j] += x * other[j]


def ikj_1x4(a, b, c, first, last, tile_i, tile_j, tile_k):  # type: ignore[no-untyped-def]
    """Fill a row of C from four rows of B at a time: each number of C is loaded and stored once for four products."""
    for i0 in range(first, last, tile_i):
        for j0 in range(0, b.shape[1], tile_j):
            end_j = min(j0 + tile_j, b.shape[1])
            for k0 in range(0, a.shape[1], tile_k):
                end_k = min(k0 + tile_k, a.shape[1])
                whole_k = k0 + (end_k - k0) // 4 * 4
                for i in range(i0, min(i0 + tile_i, last)):
                    row = c[i, j0:end_j]
                    for k in range(k0, whole_k, 4):
                        x0, x1, x2, x3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
                        b0, b1, b2, b3 = b[k, j0:end_j], b[k + 1, j0:end_j], b[k + 2, j0:end_j], b[k + 3, j0:end_j]
                        for j in range(row.size):
                            row[j] += x0 * b0[j] + x1 * b1[j] + x2 * b2[j] + x3 * b3[j]
                    for k in range(whole_k, end_k):
                        x0, b0 = a[i, k], b[k, j0:end_j]
                        for j in range(row.size):
                            row[j] += x0 * b0[j]


def ikj_2x4(a, b, c, first, last, tile_i, tile_j, tile_k):  # type: ignore[no-untyped-def]
    """Fill two rows of C from four rows of B at a time: what is loaded of B is used twice."""
    for i0 in range(first, last, tile_i):
        for j0 in range(0, b.shape[1], tile_j):
            end_j = min(j0 + tile_j, b.shape[1])
            for k0 in range(0, a.shape[1], tile_k):
                end_i, end_k = min(i0 + tile_i, last), min(k0 + tile_k, a.shape[1])
                whole_i, whole_k = i0 + (end_i - i0) // 2 * 2, k0 + (end_k - k0) // 4 * 4
                for i in range(i0, whole_i, 2):
                    c0, c1 = c[i, j0:end_j], c[i + 1, j0:end_j]
                    for k in range(k0, whole_k, 4):
                        x0, x1, x2, x3 = a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
                        y0, y1, y2, y3 = a[i + 1, k], a[i + 1, k + 1], a[i + 1, k + 2], a[i + 1, k + 3]
                        b0, b1, b2, b3 = b[k, j0:end_j], b[k + 1, j0:end_j], b[k + 2, j0:end_j], b[k + 3, j0:end_j]
                        for j in range(c0.size):
                            c0[j] += x0 * b0[j] + x1 * b1[j] + x2 * b2[j] + x3 * b3[j]
                            c1[j] += y0 * b0[j] + y1 * b1[j] + y2 * b2[j] + y3 * b3[j]
                    for k in range(whole_k, end_k):
                        x0, y0, b0 = a[i, k], a[i + 1, k], b[k, j0:end_j]
                        for j in range(c0.size):
                            c0[j] += x0 * b0[j]
                            c1[j] += y0 * b0[j]
                for i in range(whole_i, end_i):
                    row = c[i, j0:end_j]
                    for k in range(k0, end_k):
                        x0, b0 = a[i, k], b[k, j0:end_j]
                        for j in range(row.size):
                            row[j] += x0 * b0[j]


KERNELS = {
    ("ijk", "1x1"): ijk,
    ("jki", "1x1"): jki,
    ("ikj", "1x1"): ikj,
    ("ikj", "1x4"): ikj_1x4,
    ("ikj", "2x4"): ikj_2x4,
}


@lru_cache
def kernel(order: str, block: str, fastmath: bool) -> Any:
    """Compile a variant; it lets other threads run beside it."""
    return njit(nogil=True, fastmath=fastmath)(KERNELS[order, block])


@lru_cache
def problem(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return two matrices, the same at every call, and their product."""
    chance = np.random.default_rng(0)
    a, b = chance.standard_normal((size, size)), chance.standard_normal((size, size))
    return a, b, a @ b


@lru_cache
def crew(threads: int) -> ThreadPoolExecutor:
    """Return threads to share the rows of C among."""
    return ThreadPoolExecutor(threads)


def product(
    size: int, order: str, block: str, tile_i: int, tile_j: int, tile_k: int, threads: int, fastmath: bool
) -> tuple[np.ndarray, float]:
    """Return the product, and the seconds that it took. Threads share the rows of C."""
    a, b, _ = problem(size)
    run = kernel(order, block, fastmath)
    c = np.zeros((size, size))
    bounds = [size * part // threads for part in range(threads + 1)]
    began = time.perf_counter()
    if threads == 1:
        run(a, b, c, 0, size, tile_i, tile_j, tile_k)
    else:
        parts = itertools.pairwise(bounds)
        list(crew(threads).map(lambda part: run(a, b, c, *part, tile_i, tile_j, tile_k), parts))
    return c, time.perf_counter() - began


@lru_cache
def naive_seconds(size: int) -> float:
    """Return the time of three plain loops without blocks, the best of three, compiled as everything else."""

    def once() -> float:
        return product(size, "ijk", "1x1", size, size, size, threads=1, fastmath=False)[1]

    return min([once() for _ in range(4)][1:])  # the first compiles


def measure(
    size: int, order: str, block: str, tile_i: int, tile_j: int, tile_k: int, threads: int, fastmath: bool
) -> dict[str, dict[str, Any]]:
    """Measure one configuration once, and NumPy beside it."""
    naive = naive_seconds(size)
    a, b, expected = problem(size)
    began = time.perf_counter()
    a @ b
    numpy = time.perf_counter() - began
    found, seconds = product(size, order, block, tile_i, tile_j, tile_k, threads, fastmath)
    error = float(np.abs(found - expected).max())
    return {
        "Performance": {
            "milliseconds": seconds * 1e3,
            "gflops": 2 * size**3 / seconds / 1e9,
            "speedup": naive / seconds,
            "of_numpy": numpy / seconds,
        },
        "Correctness": {"passed": error <= 1e-12 * size * size, "max_error": error},
    }
