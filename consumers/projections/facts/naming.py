"""What tables, views and columns of a module are called in SQL."""

import hashlib
import re
from collections.abc import Iterable

from morphogen.schemas.knowledge.cases import snake

from ..projection import FRONT

_LONGEST = 46  # so that a hidden table can be named after it
_PLAIN = re.compile(r"[a-z][a-z0-9_]{0,47}")
_TAKEN = frozenset({*FRONT, "origin", "source", "part", "truth", "holds", "depth"})


def case_table(system: str, case: str) -> str:
    """Return the table of a case: `trace_mat_mul_performance`."""
    return _short(f"trace_{snake(system)}_{snake(case)}")


def fact_view(system: str, fact: str) -> str:
    """Return the view of a fact: `fact_mat_mul_is_slow`."""
    return _short(f"fact_{snake(system)}_{snake(fact)}")


def reference_view(system: str, fact: str) -> str:
    """Return the hidden view that asks a fact of its items by SQL alone: `_sql_fact_mat_mul_is_slow`."""
    return f"_sql_{fact_view(system, fact)}"


def judged_table(system: str, case: str) -> str:
    """Return the hidden table of a case's items with the truth of a system's window facts."""
    return _short(f"_judged_{system_word(system)}__{snake(case)}")  # no word has __ in it


def truth_columns(facts: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Return the column of each fact's truth; none is one of those that are taken."""
    columns: dict[str, str] = {}
    used = set(taken)
    for fact in facts:
        word = name = _short(f"_{snake(fact)}", 40)
        number = 2
        while name in used:
            name, number = f"{word}_{number}", number + 1
        columns[fact] = name
        used.add(name)
    return columns


def system_word(system: str) -> str:
    """Return a system's name as a part of names, short enough to be put before others."""
    return _short(snake(system), 30)


def columns_of(fields: Iterable[str]) -> dict[str, str]:
    """Return the column of each field: the field's name where it can be one, otherwise a word made of it.

    Names of the envelope get a `_` behind them. SQL does not tell capitals from small letters, so `Loss` beside `loss`
    gets a number.
    """
    columns: dict[str, str] = {}
    for field in fields:
        word = field.lower() if _PLAIN.fullmatch(field.lower()) else _short(snake(field), 40)
        name = f"{word}_" if word in _TAKEN else word
        number = 2
        while name in columns.values():
            name, number = f"{word}_{number}", number + 1
        columns[field] = name
    return columns


def own_name(name: str) -> str:
    """Return the name of a fact or a rule without that of its system."""
    return name.rpartition(".")[2] if name.count(".") == 1 else name.partition(".")[2]


def _short(name: str, longest: int = _LONGEST) -> str:
    if len(name) <= longest:
        return name
    return f"{name[: longest - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
