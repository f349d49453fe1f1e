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
CANCELLED = 0.1  # a variance below this share of the mean square is computed again around the mean
ONES = np.ones(CHUNK, dtype=np.float32)
_BLOCK = 1 << 20  # elements turned to float64 at a time


def row_dots(matrix: Floats, out: Floats | None = None) -> Floats:
    """Return the sum of squares of each row, in `out` where it is given."""
    return _row_products(matrix, matrix, out)


def row_sums(matrix: Floats, out: Floats | None = None) -> Floats:
    """Return the sum of each row of at most CHUNK elements, in `out` where it is given."""
    return _row_products(matrix, ONES[: matrix.shape[-1]], out)


def _matmul_rows(left: Floats, right: Floats, out: Floats | None = None) -> Floats:
    products: Floats = np.matmul(left[..., None, :], right[..., :, None])[..., 0, 0]
    if out is None:
        return products
    out[...] = products
    return out


# One routine for all products: what was just called is called again while its code is still in the cache.
_row_products: Callable[[Floats, Floats, Floats | None], Floats] = getattr(np, "vecdot", _matmul_rows)


@lru_cache(maxsize=4096)
def split(size: int) -> int | None:
    """Say into how many equal rows of at most CHUNK elements a buffer can be cut, None where it cannot."""
    if size == 0:
        return None
    least = -(-size // CHUNK)
    return next((rows for rows in range(least, 4 * least) if size % rows == 0), None)


def pieces_of(flat: Floats) -> list[Floats]:
    """Cut a buffer into pieces of at most CHUNK elements."""
    return [flat[start : start + CHUNK] for start in range(0, flat.size, CHUNK)]


def sum_of_squares(flat: Floats) -> float:
    """Return the sum of squares of a one-dimensional contiguous buffer, NaN and infinity as they come."""
    with np.errstate(all="ignore"):
        if flat.dtype == np.float64:
            return float(flat.dot(flat))
        squares = [float(piece.dot(piece)) for piece in pieces_of(flat)]
        trusted = squares and min(squares) > LOW and sum(squares) < HIGH  # the sum, because it shows a NaN
        return sum(squares) if trusted else _square_in_double(flat)


def _square_in_double(flat: Floats) -> float:
    total = 0.0
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK].astype(np.float64)
        total += float(part.dot(part))
    return total


def count_nonfinite(flat: Floats) -> int:
    """Count the NaN and the infinities."""
    return int(flat.size - np.count_nonzero(np.isfinite(flat)))


def moments(flat: Floats) -> tuple[float, float, int]:
    """Return the mean, the sum of squared distances from it, and the number of non-finite values."""
    if flat.dtype == np.float32:
        pieces = pieces_of(flat)
        with np.errstate(all="ignore"):
            total = sum([float(piece.dot(ONES[: piece.size])) for piece in pieces])
            square = sum([float(piece.dot(piece)) for piece in pieces])
        spread = square - total * total / flat.size
        if LOW < square < HIGH and spread > CANCELLED * square:
            return total / flat.size, spread, 0
    return moments_again(flat)


def moments_again(flat: Floats) -> tuple[float, float, int]:
    """Return what `moments` returns, summed in float64 around the mean."""
    size = flat.size
    with np.errstate(all="ignore"):
        mean = float(np.add.reduce(flat, dtype=np.float64)) / size
        spread = 0.0
        for start in range(0, size, _BLOCK):
            part = flat[start : start + _BLOCK].astype(np.float64) - mean
            spread += float(part.dot(part))
    return mean, spread, 0 if np.isfinite(spread) else count_nonfinite(flat)
