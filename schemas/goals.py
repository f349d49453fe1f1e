"""What was asked for, made comparable: one normalisation of goals, versioned, used wherever goals meet.

A goal is a sentence with parameters: "Sum the column price of shop.csv" with `{"column": "price", "path": "shop.csv"}`. Its
*template* names the parameters instead of their values ("sum the column {column} of {path}"); all goals of one template
are a *family*, known by the template's signature.
"""

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

NORM_VERSION = 1
_PLACE = re.compile(r"\{([A-Za-z][A-Za-z0-9_]*)\}")
_WORD = re.compile(r"\{[A-Za-z][A-Za-z0-9_]*\}|\w+", re.UNICODE)


def template(goal: str, params: Mapping[str, Any] | None = None) -> str:
    """Return the normal form of a goal: its values named, case folded, words with one space between them.

    A text or number of `params` that stands in the goal as a whole word becomes `{name}`, the longest first; what is written
    `{name}` already stays. Punctuation goes, so "Sum it!" and "sum  it" are one goal.
    """
    text = unicodedata.normalize("NFKC", goal)
    values = [
        (unicodedata.normalize("NFKC", str(value)), name)
        for name, value in (params or {}).items()
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip()
    ]
    for value, name in sorted(values, key=lambda pair: (-len(pair[0]), pair[1])):
        text = re.sub(rf"(?<![\w{{]){re.escape(value)}(?![\w}}])", lambda _, name=name: f"{{{name}}}", text)  # type: ignore[misc]
    words = _WORD.findall(text)
    return " ".join(word if _PLACE.fullmatch(word) else word.casefold() for word in words)


def signature(goal: str, params: Mapping[str, Any] | None = None) -> str:
    """Return the name of a goal's family: `g1-` and 16 hex digits, of the version and the template."""
    digest = hashlib.sha256(f"{NORM_VERSION}\n{template(goal, params)}".encode()).hexdigest()
    return f"g{NORM_VERSION}-{digest[:16]}"
