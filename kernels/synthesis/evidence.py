"""Names as evidence: which of several columns, keys or parameters is meant, where the examples do not tell."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from .program import Const, Op, Ref, walk

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_SHORTEST = 3  # letters that an abbreviation shares with its word at least: val and validation


class Evidence:
    """The words that were said: in the goal, and in the names of parameters."""

    def __init__(self, goal: str, params: Iterable[str]) -> None:
        self._said = set(words(goal)) | {word for name in params for word in words(name)}

    def weight(self, expr: Any, beside: str, used: Counter[str]) -> int:
        """Return how much speaks for the names in an expression: said, beside the key of the answer, used elsewhere."""
        near = set(words(beside))
        total = 0
        for name in data_names(expr):
            own = words(name)
            total += sum(3 * _meant(word, near) + 2 * _meant(word, self._said) for word in own)
            total += bool(used[name])
        return total

    def names(self, name: str, beside: str) -> bool:
        """Say whether the goal, or the key of the answer, names a column."""
        said = self._said | set(words(beside))
        return any(_meant(word, said) for word in words(name))


def words(text: str) -> list[str]:
    """Return the words of a text or of a name such as `val_loss` or `valLoss`, in small letters."""
    return [word.lower() for word in _WORD.findall(text)]


def _meant(word: str, said: set[str]) -> bool:
    short = len(word) < _SHORTEST
    return word in said or (
        not short and any(len(one) >= _SHORTEST and (one.startswith(word) or word.startswith(one)) for one in said)
    )


def data_names(expr: Any) -> list[str]:
    """Return the names of data in an expression, in order: keys, columns, parameters; what was read has none of its own."""
    found = []
    for part in walk(expr):
        if isinstance(part, Op) and part.op in ("item", "get_or") and isinstance(part.args[1], Const):
            if isinstance(part.args[1].value, str):
                found.append(part.args[1].value)
        elif isinstance(part, Ref):
            found.append(part.name)
    return found
