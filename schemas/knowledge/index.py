"""Everything that modules declare, by full name, and what each spelling of a name means."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .tree import (
    AgentLoop,
    Artifact,
    Case,
    Constant,
    Domain,
    EngineeringLoop,
    Fact,
    FieldDecl,
    Function,
    Hint,
    Invariant,
    ListType,
    Module,
    NamedType,
    OptionalType,
    Procedure,
    RecordedFact,
    Rule,
    ServiceLoop,
    StateDecl,
    System,
    SystemModel,
    Task,
    TypeDecl,
    TypeExpr,
    View,
)
from .types import ANY, Type, resolve

Kind: TypeAlias = Literal[
    "case", "type", "fact", "recorded", "rule", "hint", "invariant", "function", "procedure", "constant", "state",
    "loop", "task", "view", "artifact",
]  # fmt: skip

Loop: TypeAlias = AgentLoop | ServiceLoop | EngineeringLoop
Declared: TypeAlias = (
    Case | TypeDecl | Fact | RecordedFact | Rule | Hint | Invariant | Function | Procedure | Constant | StateDecl
    | Loop | Task | View | Artifact
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One declaration: its full name, the system or domain that it stands in ("" for none), and for a case its variant."""

    kind: Kind
    name: str
    system: str
    node: Declared
    variant: str = ""
    foreign: bool = False  # of a used module

    @property
    def full(self) -> str:
        """`System.name`."""
        return f"{self.system}.{self.name}" if self.system else self.name


@dataclass(slots=True)
class Index:
    """All declarations of a module and of those it uses, in the order written; foreign ones first."""

    entries: list[Entry] = field(default_factory=list)
    systems: dict[str, System] = field(default_factory=dict)
    models: list[SystemModel] = field(default_factory=list)
    _spelled: dict[tuple[Kind, str], list[Entry]] = field(default_factory=dict)
    _types: dict[str, Type] = field(default_factory=dict)

    def of(self, kind: Kind) -> Iterator[Entry]:
        """Yield the declarations of one kind."""
        return (entry for entry in self.entries if entry.kind == kind)

    def find(self, kind: Kind, written: str, system: str = "") -> Entry | None:
        """Return what a spelling means, seen from a system, whose own names go first; None for none or several."""
        found = self.candidates(kind, written, system)
        return found[0] if len(found) == 1 else None

    def candidates(self, kind: Kind, written: str, system: str = "") -> list[Entry]:
        """Return all that a spelling may mean, seen from a system."""
        found = self._spelled.get((kind, written), [])
        for near in (
            [entry for entry in found if entry.system == system],
            [entry for entry in found if not entry.foreign],
        ):
            if near:
                return near
        return found

    def shared(self, kind: Kind, written: str) -> bool:
        """Tell whether several systems declare this spelling."""
        return len(self._spelled.get((kind, written), ())) > 1

    def spellings(self, kind: Kind) -> Iterable[str]:
        """Return every spelling of a kind, for offering the nearest."""
        return [spelling for known, spelling in self._spelled if known == kind]

    def add(self, entry: Entry) -> None:
        """Take a declaration in; one of a full name that is there already stays unseen."""
        self.entries.append(entry)
        spelled = [entry.name]
        if entry.system:
            spelled.append(entry.full)
        if entry.variant:
            spelled += [f"{entry.variant}.{entry.name}", f"{entry.system}.{entry.variant}.{entry.name}"]
        for spelling in dict.fromkeys(spelled):
            there = self._spelled.setdefault((entry.kind, spelling), [])
            if all(other.full != entry.full for other in there):
                there.append(entry)

    def type_named(self, name: str, system: str = "") -> Type | None:
        """Return the declared type of this name, or a case as one; None where there is none."""
        entry = self.find("type", name, system) or self.find("case", name, system)
        if entry is None:
            return None
        key = f"{entry.kind} {entry.full}"
        if key not in self._types:
            self._types[key] = Type("map", name=entry.full)  # what a recursive type sees of itself
            assert isinstance(entry.node, (TypeDecl, Case))
            self._types[key] = Type("map", name=entry.full, fields=self.fields(entry.node.fields, entry.system))
        return self._types[key]

    def fields(self, decls: tuple[FieldDecl, ...], system: str) -> Mapping[str, Type]:
        """Return the resolved fields of a declaration; one that cannot be resolved is of any type."""
        return {one.name: self.resolved(one.type, system) for one in decls}

    def resolved(self, expr: TypeExpr, system: str) -> Type:
        """Return what a type expression stands for, any type where it cannot be resolved."""
        return resolve(expr, lambda name: self.type_named(name, system)) or ANY


def index_of(module: Module, used: Iterable[Module] = ()) -> Index:
    """Return all that a module and the modules it uses declare."""
    made = Index()
    for one in used:
        _add_module(made, one, foreign=True)
    _add_module(made, module, foreign=False)
    return made


def _add_module(index: Index, module: Module, *, foreign: bool) -> None:
    index.models += module.models
    for task in module.tasks:
        index.add(Entry("task", task.name, "", task, foreign=foreign))
    for domain in module.domains:
        _add_domain(index, domain, foreign)
    for system in module.systems:
        index.systems.setdefault(system.name, system)
        for entry in _of_system(system, foreign):
            index.add(entry)
        for domain in system.domains:
            _add_domain(index, domain, foreign)


def _add_domain(index: Index, domain: Domain, foreign: bool) -> None:
    for kind, nodes in (("type", domain.types), ("invariant", domain.invariants), ("rule", domain.rules)):
        for node in nodes:
            index.add(Entry(kind, node.name, domain.name, node, foreign=foreign))  # type: ignore[arg-type]


def _of_system(system: System, foreign: bool) -> Iterator[Entry]:
    for variant in system.variants:
        for case in variant.cases:
            yield Entry("case", case.name, system.name, case, variant.name, foreign)
    groups: tuple[tuple[Kind, tuple[Declared, ...]], ...] = (
        ("type", system.types),
        ("fact", system.facts),
        ("recorded", system.recorded),
        ("rule", system.rules),
        ("hint", system.hints),
        ("invariant", system.invariants),
        ("function", system.functions),
        ("procedure", system.procedures),
        ("constant", system.constants),
        ("state", system.states),
        ("loop", (*system.agent_loops, *system.service_loops, *system.engineering_loops)),
        ("task", system.tasks),
        ("view", system.views),
        ("artifact", system.artifacts),
    )
    for kind, nodes in groups:
        for node in nodes:
            yield Entry(kind, node.name, system.name, node, foreign=foreign)


def named_types(expr: TypeExpr) -> Iterator[NamedType]:
    """Yield every name in a type expression."""
    match expr:
        case NamedType():
            yield expr
        case ListType(item=item) | OptionalType(item=item):
            yield from named_types(item)
        case _:
            return
