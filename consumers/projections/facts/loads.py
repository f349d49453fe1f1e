"""Texts that the log holds, and which of them is in force for each system. Knows nothing of what they say."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Loaded:
    """A text in the log: where it stands, and what it is."""

    seq: int
    path: str
    sha256: str
    text: str
    used: tuple[tuple[str, str], ...]
    systems: tuple[str, ...]


def in_force(loads: Sequence[Loaded], drops: Iterable[tuple[int, str]]) -> dict[str, Loaded]:
    """Return the text that holds for each system: its newest, unless it was dropped after that."""
    last_drop: dict[str, int] = {}
    for seq, system in drops:
        last_drop[system] = max(seq, last_drop.get(system, 0))
    found: dict[str, Loaded] = {}
    for one in loads:
        for system in one.systems:
            found[system] = one
    return {system: one for system, one in sorted(found.items()) if one.seq > last_drop.get(system, -1)}
