"""Integers of an event as the columns of a table can hold them: the nearest one where they cannot."""

from typing import overload


@overload
def int32(value: int) -> int: ...
@overload
def int32(value: None) -> None: ...
@overload
def int32(value: int | None) -> int | None: ...
def int32(value: int | None) -> int | None:
    """Return an integer as an INTEGER can hold it."""
    return None if value is None else min(max(value, -(2**31)), 2**31 - 1)


@overload
def int64(value: int) -> int: ...
@overload
def int64(value: None) -> None: ...
@overload
def int64(value: int | None) -> int | None: ...
def int64(value: int | None) -> int | None:
    """Return an integer as a BIGINT can hold it."""
    return None if value is None else min(max(value, -(2**63)), 2**63 - 1)
