"""What an expression may name at the place where it stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ..index import Entry, Index
from ..types import ANY, Type

Place = Literal["fact", "function", "rule", "invariant", "loop", "space", "text", "constant"]
"""Where an expression stands: what it may call depends on it."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The names around an expression.

    item       the parameter of the fact and the case that it looks at
    trace      whether `trace.latest` and facts on it may be asked
    words      whether a bare name that nothing declares stands for itself (`objective: maximize`)
    maybe      variables that only some ways to this place have given a value
    later      variables that get a value further down
    conditions whether `file_exists(...)` and its like may be asked
    """

    index: Index
    place: Place
    system: str = ""
    names: Mapping[str, Type] = field(default_factory=dict)
    item: tuple[str, Entry] | None = None
    trace: bool = False
    words: bool = False
    conditions: bool = False
    in_aggregate: bool = False
    maybe: Mapping[str, Type] = field(default_factory=dict)
    later: frozenset[str] = frozenset()

    def with_names(self, names: Mapping[str, Type]) -> "Environment":
        """Return the same environment with these names on top."""
        return replace(self, names={**self.names, **names})

    def known(self) -> list[str]:
        """Return every name that may be written here, for offering the nearest."""
        names = [*self.names, *self.maybe]
        if self.item is not None:
            names.append(self.item[0])
        if self.trace:
            names += ["trace", *self.index.spellings("fact")]
        return [*names, *self.index.spellings("constant")]


def item_type(index: Index, entry: Entry | None) -> Type:
    """Return the type of an item of one case, or of the trace as a whole: all fields of all cases, none for sure."""
    if entry is not None:
        found = index.type_named(entry.full, entry.system)
        return found or Type("map", name=entry.full)
    fields: dict[str, Type] = {}
    for case in index.of("case"):
        there = index.type_named(case.full, case.system)
        for name, type_ in ((there.fields if there is not None else None) or {}).items():
            fields[name] = replace(type_, optional=True) if fields.get(name, type_) == type_ else ANY
    return Type("map", name=TRACE_ITEM, fields=fields if fields else None, optional=True)


TRACE_ITEM = "trace item"
