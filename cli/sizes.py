"""Bytes as a person reads and writes them."""

import re

import typer

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def size(count: float) -> str:
    """Return `count` bytes with a unit."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `512MiB`, `8GB` or `0`. Raises typer.BadParameter for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size: write 512MiB, 8GB, or a number of bytes")
    number, unit, binary = match.groups()
    found = float(number) * (1024 if binary else 1000) ** _POWERS[unit.lower()]
    if found >= 2**63:
        raise typer.BadParameter(f"{text[:40]!r} is more than any machine has: write 512MiB, 8GB, or a number of bytes")
    return int(found)
