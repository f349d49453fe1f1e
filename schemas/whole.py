"""A number that somebody tells (a cost, a count, a duration) as the whole number that an event holds."""

import math
from decimal import Decimal
from numbers import Real

from .errors import MorphogenError

_MOST = 2**63 - 1


def whole(name: str, value: object, refused: type[MorphogenError], *, down: bool = False) -> int:
    """Return a real number of any kind (numpy's and Decimal too) as the nearest whole one, or as the one below it.

    Raises `refused`, which names it, for what is no number, NaN, infinite, below 0 or beyond 64 bits.
    """
    found = _rounded(value, down=down)
    if found is None or not 0 <= found <= _MOST:
        raise refused(f"{name} is {_shown(value)}: give a number from 0 below 2**63")
    return found


def whole_if_known(name: str, value: object, refused: type[MorphogenError], *, down: bool = False) -> int | None:
    """Return what `whole` returns, and None, which is not known, as it is."""
    return None if value is None else whole(name, value, refused, down=down)


def lasted(name: str, value: object, refused: type[MorphogenError]) -> int:
    """Return a duration as `whole` does; one below 0 is that of a clock that was set back, and becomes 0."""
    found = _rounded(value)
    return 0 if found is not None and found < 0 else whole(name, value, refused)


def _rounded(value: object, *, down: bool = False) -> int | None:
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    try:
        if not math.isfinite(value):  # asked first: a Decimal of 1e999999999 is rounded to as many digits
            return None
        return int(math.floor(value) if down else round(value))
    except (ValueError, ArithmeticError):  # a NaN that signals, an integer beyond all floats
        return None


def _shown(value: object) -> str:
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001  an object of the user's, or an integer of more digits than Python writes
        shown = f"a {type(value).__qualname__}"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
