"""Definitions that call themselves, and what a procedure does in the end."""

from collections.abc import Callable, Iterator

from ..aggregates import is_aggregate
from ..index import Entry, Index
from ..tree import Action, Call, Fact, Function, Node, Procedure
from .report import Report
from .walk import nodes


def check_recursion(index: Index, report: Report) -> frozenset[str]:
    """Say which facts, functions and procedures call themselves, in however many steps; return their full names."""
    circular: set[str] = set()
    graph = {entry.full: (entry, list(_calls(entry, index))) for entry in index.entries if _callable(entry)}
    for full, (entry, _) in graph.items():
        if entry.foreign:
            continue
        way = _way_back(full, graph)
        if way is None:
            continue
        circular.add(full)
        names = [graph[one][0].name for one in way]
        how = "itself" if len(way) == 1 else f"itself through {', '.join(f'`{one}`' for one in names[1:])}"
        kind = {"fact": "fact", "function": "function"}.get(entry.kind, "procedure")
        report.add("K304", entry.node, f"the {kind} `{entry.name}` calls {how}")
    return frozenset(circular)


def _callable(entry: Entry) -> bool:
    return isinstance(entry.node, (Fact, Function, Procedure))


def _calls(entry: Entry, index: Index) -> Iterator[str]:
    for name in called(entry.node):
        for kind in ("fact", "function", "procedure"):
            found = index.find(kind, name, entry.system)
            if found is not None:
                yield found.full


def called(node: Node) -> Iterator[str]:
    """Yield the name of everything that is called below a node."""
    for one in nodes(node):
        if isinstance(one, (Call, Action)):
            yield one.name


def _way_back(start: str, graph: dict[str, tuple[Entry, list[str]]]) -> list[str] | None:
    """Return the shortest way from a definition back to itself; None where there is none."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        for following in graph[way[-1]][1]:
            if following == start:
                return way
            if following not in seen and following in graph:
                seen.add(following)
                ways.append([*way, following])
    return None


def has_aggregate(index: Index, fact: Entry) -> bool:
    """Tell whether a fact, itself or through those that it asks, goes over a window."""
    seen = {fact.full}
    todo = [fact]
    while todo:
        here = todo.pop()
        for one in nodes(here.node):
            if not isinstance(one, Call):
                continue
            if is_aggregate(one):
                return True
            found = index.find("fact", one.name, here.system)
            if found is not None and found.full not in seen:
                seen.add(found.full)
                todo.append(found)
    return False


def reaches(index: Index, entry: Entry, wanted: Callable[[str], bool]) -> str | None:
    """Return the first action of a wanted name that a procedure does, itself or through those that it calls."""
    seen = {entry.full}
    todo = [entry]
    while todo:
        here = todo.pop()
        for name in called(here.node):
            if wanted(name):
                return name
            found = index.find("procedure", name, here.system)
            if found is not None and found.full not in seen:
                seen.add(found.full)
                todo.append(found)
    return None
