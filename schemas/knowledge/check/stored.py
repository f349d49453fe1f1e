"""What cases and facts are where they are stored: events with fields, tables and views with names."""

from collections.abc import Iterable

from ..cases import unrecordable, words_of
from ..index import Index
from ..tree import Module
from .report import Report


def check_stored(module: Module, used: Iterable[Module], index: Index, report: Report) -> None:
    """Say which cases could never be recorded, and which names SQL could not tell apart."""
    first: dict[str, str] = {}
    for system in (system for one in used for system in one.systems):
        first.update((word, name) for word, name, _ in words_of(system))
    for system in module.systems:
        for word, name, node in words_of(system):
            there = first.setdefault(word, name)
            if there != name:
                report.add("K116", node, f"`{name}` and `{there}` are both `{word}` in SQL: rename one of them")
        for variant in system.variants:
            for case in variant.cases:
                problem = None if case.source else unrecordable(index.fields(case.fields, system.name))
                if problem is not None:
                    field = next(one for one in case.fields if one.name == problem[0])
                    report.add("K117", field, f"the case `{case.name}` has {problem[1]}", hint="rename it")
