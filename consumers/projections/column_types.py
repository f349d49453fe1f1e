"""The types that columns are declared with, as text: split at commas, in one spelling, taken apart.

Names of fields and quoted text stay as they were written; all other words are upper-case.
"""

import re
from functools import lru_cache
from typing import NamedTuple

_LIST = re.compile(r"(.+?)\s*((?:\bARRAY\s*)?\[\s*\d*\s*\]|\bARRAY)", re.DOTALL | re.IGNORECASE)
_OF_OTHERS = re.compile(r"(STRUCT|ROW|UNION|MAP)\s*\((.*)\)", re.DOTALL | re.IGNORECASE)
_FIELD = re.compile(r'\s*("(?:[^"]|"")*"|\S+)\s+(.*)', re.DOTALL)
_QUOTED = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")""")


class Nested(NamedTuple):
    """A type made of others: `LIST` of one, `MAP` of two, or `STRUCT` of as many as it has `names`."""

    shape: str
    kinds: tuple[str, ...]
    names: tuple[str, ...] = ()


def split(text: str) -> list[str]:
    """Split at the commas that stand outside brackets and quotes."""
    parts: list[str] = []
    start = depth = 0
    quote = ""
    for at, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign in "([":
            depth += 1
        elif sign in ")]":
            depth -= 1
        elif sign == "," and not depth:
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def spelled(kind: str) -> str:
    """Return a type in the one spelling."""
    kind = kind.strip()
    if found := _LIST.fullmatch(kind):
        inner, suffix = found.groups()
        return f"{spelled(inner)}{' ' if suffix[0] in 'aA' else ''}{_upper(suffix)}"
    found = _OF_OTHERS.fullmatch(kind)
    if found is None:
        return _upper(kind)
    shape, inside = found[1].upper(), split(found[2])
    if shape == "MAP":
        return f"MAP({', '.join(map(spelled, inside))})"
    fields = [f"{field[1]} {spelled(field[2])}" if (field := _FIELD.fullmatch(part)) else part for part in inside]
    return f"{shape}({', '.join(fields)})"


@lru_cache(maxsize=256)
def apart(kind: str) -> Nested | None:
    """Take a type apart; None where it is made of no others, or is a UNION."""
    kind = kind.strip()
    if found := _LIST.fullmatch(kind):
        return Nested("LIST", (found[1],))
    found = _OF_OTHERS.fullmatch(kind)
    if found is None or found[1].upper() == "UNION":
        return None
    inside = split(found[2])
    if found[1].upper() == "MAP":
        return Nested("MAP", tuple(part.strip() for part in inside)) if len(inside) == 2 else None
    fields = [_FIELD.fullmatch(part) for part in inside]
    if not all(fields):
        return None
    return Nested("STRUCT", tuple(f[2].strip() for f in fields if f), tuple(_bare(f[1]) for f in fields if f))


def outside(kind: str) -> str:
    """Return what of a type stands outside brackets and quotes, where a constraint would stand."""
    left = _QUOTED.sub("", kind)
    while (less := re.sub(r"\([^()]*\)", " ", left)) != left:
        left = less
    return left


def _upper(text: str) -> str:
    parts = _QUOTED.split(text)
    parts[::2] = [re.sub(r"\s+", " ", part).upper() for part in parts[::2]]
    return "".join(parts)


def _bare(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
