"""Sums over float buffers that are fast where float32 is enough and exact where it is not.

BLAS dot products cost a fraction of torch's reductions on small tensors, but they add up in float32:
they overflow from about 1e19 and lose small values. Each result is checked, and redone in float64 when it
left the range in which it can be trusted. Long buffers are summed by chunks, so that rounding does not grow.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

CHUNK = 8192  # below the length from which OpenBLAS starts threads for a dot product
LOW, HIGH = 1e-24, 3e38  # a float32 sum of squares in between lost nothing to underflow or overflow
_CANCELLED = 0.1  # a variance below this share of the mean square is computed again around the mean
_ONES = np.ones(CHUNK, dtype=np.float32)
_BLOCK = 1 << 20  # elements turned to float64 at a time


def row_dots(matrix: Floats) -> Floats:
    """Return the sum of squares of each row."""
    return _row_products(matrix, matrix)


def row_sums(matrix: Floats) -> Floats:
    """Return the sum of each row of at most CHUNK elements."""
    return _row_products(matrix, _ONES[: matrix.shape[1]])


def _matmul_rows(left: Floats, right: Floats) -> Floats:
    products: Floats = np.matmul(left[:, None, :], right[..., :, None])
    return products.reshape(-1)


# One routine for all products: what was just called is called again while its code is still in the cache.
_row_products: Callable[[Floats, Floats], Floats] = getattr(np, "vecdot", _matmul_rows)


@lru_cache(maxsize=4096)
def split(size: int) -> int | None:
    """Say into how many equal rows of at most CHUNK elements a buffer can be cut, None where it cannot."""
    if size == 0:
        return None
    least = -(-size // CHUNK)
    return next((rows for rows in range(least, 4 * least) if size % rows == 0), None)


def sum_of_squares(flat: Floats) -> float:
    """Return the sum of squares of a one-dimensional contiguous buffer, NaN and infinity as they come."""
    size = flat.size
    if flat.dtype == np.float64:
        with np.errstate(all="ignore"):
            return float(flat.dot(flat))
    if size <= CHUNK:
        fast = float(flat.dot(flat))
        return fast if LOW < fast < HIGH else _square_in_double(flat)
    whole = size - size % CHUNK
    rows = row_dots(flat[:whole].reshape(-1, CHUNK))
    tail = flat[whole:]
    if rows.min() > LOW and rows.max() < HIGH:
        return float(rows.sum(dtype=np.float64)) + (sum_of_squares(tail) if tail.size else 0.0)
    return _square_in_double(flat)


def _square_in_double(flat: Floats) -> float:
    total = 0.0
    with np.errstate(all="ignore"):
        for start in range(0, flat.size, _BLOCK):
            part = flat[start : start + _BLOCK].astype(np.float64)
            total += float(part.dot(part))
    return total


def count_nonfinite(flat: Floats) -> int:
    """Count the NaN and the infinities."""
    return int(flat.size - np.count_nonzero(np.isfinite(flat)))


def moments(flat: Floats) -> tuple[float, float, int]:
    """Return the mean, the sum of squared distances from it, and the number of non-finite values."""
    size = flat.size
    if flat.dtype == np.float32 and size <= CHUNK:
        total, square = float(flat.dot(_ONES[:size])), float(flat.dot(flat))
        if LOW < square < HIGH:
            spread = square - total * total / size
            if spread > _CANCELLED * square:
                return total / size, spread, 0
    return _moments_in_double(flat)


def _moments_in_double(flat: Floats) -> tuple[float, float, int]:
    size = flat.size
    with np.errstate(all="ignore"):
        mean = float(np.add.reduce(flat, dtype=np.float64)) / size
        spread = 0.0
        for start in range(0, size, _BLOCK):
            part = flat[start : start + _BLOCK].astype(np.float64) - mean
            spread += float(part.dot(part))
    return mean, spread, 0 if np.isfinite(spread) else count_nonfinite(flat)


def moments_of_rows(matrix: Floats, rows: int) -> list[tuple[float, float, int]]:
    """Return what `moments` returns, of each of `rows` equal parts of a float32 buffer.

    `matrix` holds the parts one after the other, each cut into rows of at most CHUNK elements.
    """
    size = matrix.size // rows
    totals, squares = row_sums(matrix), row_dots(matrix)
    if len(matrix) != rows:
        totals = totals.reshape(rows, -1).sum(axis=1, dtype=np.float64)
        squares = squares.reshape(rows, -1).sum(axis=1, dtype=np.float64)
    found = []
    for row, (total, square) in enumerate(zip(totals.tolist(), squares.tolist(), strict=True)):
        mean = total / size
        spread = square - total * mean
        if spread > _CANCELLED * square and LOW < square < HIGH:
            found.append((mean, spread, 0))
        else:
            found.append(_moments_in_double(matrix.reshape(rows, -1)[row]))
    return found
