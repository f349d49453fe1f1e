"""Leaves out what nothing needs: readings whose result is not used, names that nobody reads."""

from collections.abc import Mapping, Sequence

import msgspec

from .program import Call, CallEach, If, Let, Stmt, refs
from .tape import LOOKS


def needed(body: Sequence[Stmt], tools: Mapping[str, str], *, after: frozenset[str] = frozenset()) -> list[Stmt]:
    """Return the statements that the answer, or a change of the world, depends on; `after` are names read later."""
    kept: list[Stmt] = []
    wanted = set(after)
    for part in reversed(body):
        if isinstance(part, Let) and part.name not in wanted:
            continue
        if isinstance(part, Call | CallEach) and _unread(part, wanted) and tools.get(part.tool, "external") in LOOKS:
            continue
        left = _lightened(part, tools, frozenset(wanted))
        wanted |= refs(left)
        kept.append(left)
    return kept[::-1]


def _unread(part: Call | CallEach, wanted: set[str]) -> bool:
    return part.into is not None and part.into not in wanted


def _lightened(part: Stmt, tools: Mapping[str, str], wanted: frozenset[str]) -> Stmt:
    if isinstance(part, Call) and part.into not in wanted:
        return msgspec.structs.replace(part, into=None)
    if isinstance(part, If):
        then, other = (tuple(needed(side, tools, after=wanted)) for side in (part.then, part.other))
        return If(part.test, then, other)
    return part
