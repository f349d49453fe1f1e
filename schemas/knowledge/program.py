"""A checked module with everything in it by name: what loops, facts and tables are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from .aggregates import Item
from .diagnostics import Diagnostic
from .evaluate import Scope
from .logic import Value
from .tools import TOOLS, Signature
from .tree import (
    AgentLoop,
    Artifact,
    Case,
    EngineeringLoop,
    Expr,
    Fact,
    Function,
    Hint,
    Invariant,
    Module,
    Procedure,
    RecordedFact,
    Rule,
    ServiceLoop,
    StateDecl,
    System,
    SystemModel,
    Task,
    View,
)
from .types import Type

Loop: TypeAlias = AgentLoop | ServiceLoop | EngineeringLoop


@dataclass(frozen=True, slots=True)
class CaseInfo:
    """A case of a system's trace: `name` is `System.Case`; `fields` are resolved, in the order declared.

    `source` is the event type that it reads from (`from "health.layer"`), None for a case of its own.
    """

    name: str
    system: str
    variant: str
    case: Case
    fields: Mapping[str, Type]

    @property
    def source(self) -> str | None:
        """The event type that this case reads, where it is not one of its own."""
        return self.case.source


@dataclass(frozen=True, slots=True)
class FactInfo:
    """A predicate fact: `name` is `System.fact`; `case` is the full name of the case that it looks at.

    `fact.body` has its units converted: every number stands in the unit of the field that it meets.
    """

    name: str
    system: str
    case: str
    fact: Fact


@dataclass(frozen=True, slots=True)
class Named:
    """Something declared in a system or a domain: `name` is `System.name`."""

    name: str
    system: str


@dataclass(frozen=True, slots=True)
class RuleInfo(Named):
    """A rule. `facts` are the full names of the predicate facts that its conditions call.

    `conditions` are those that can be executed (all must hold), `advice` those that are plain text.
    """

    rule: Rule
    facts: tuple[str, ...] = ()
    conditions: tuple[Expr, ...] = ()
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HintInfo(Named):
    """A hint, with its triggers told apart as a rule's conditions are."""

    hint: Hint
    facts: tuple[str, ...] = ()
    conditions: tuple[Expr, ...] = ()
    advice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """A module that checks, with the modules that it uses.

    Every mapping is by full name (`System.name`; a task or a loop of no system by its name alone), in the order written,
    those of used modules first. `module` is this file's tree with units converted; it is not to be checked again.
    """

    module: Module
    text: str
    sha256: str
    path: str
    warnings: tuple[Diagnostic, ...] = ()
    used: Mapping[str, str] = field(default_factory=dict)
    """Texts of all used modules, also those used by used ones, by target as written (`std.training`)."""
    used_modules: Mapping[str, Module] = field(default_factory=dict)
    systems: Mapping[str, System] = field(default_factory=dict)
    models: Mapping[str, SystemModel] = field(default_factory=dict)
    cases: Mapping[str, CaseInfo] = field(default_factory=dict)
    types: Mapping[str, Type] = field(default_factory=dict)
    facts: Mapping[str, FactInfo] = field(default_factory=dict)
    recorded: Mapping[str, RecordedFact] = field(default_factory=dict)
    rules: Mapping[str, RuleInfo] = field(default_factory=dict)
    hints: Mapping[str, HintInfo] = field(default_factory=dict)
    invariants: Mapping[str, Invariant] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)
    procedures: Mapping[str, Procedure] = field(default_factory=dict)
    constants: Mapping[str, Value] = field(default_factory=dict)
    states: Mapping[str, StateDecl] = field(default_factory=dict)
    loops: Mapping[str, Loop] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=dict)
    views: Mapping[str, View] = field(default_factory=dict)
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)
    spellings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Full names by every spelling that means one thing, by kind: case, fact, function, procedure, rule, loop."""

    def case(self, written: str) -> CaseInfo:
        """Return the case of this spelling (`Perf`, `TraceItem.Perf`, `System.Perf`); KnowledgeError without one."""
        return self.cases[self._full("case", written)]

    def fact(self, written: str) -> FactInfo:
        """Return the fact of this spelling; KnowledgeError without one."""
        return self.facts[self._full("fact", written)]

    def procedure(self, written: str) -> Procedure:
        """Return the procedure of this spelling; KnowledgeError without one."""
        return self.procedures[self._full("procedure", written)]

    def find_loop(self, name: str | None = None) -> Loop | Task:
        """Return the loop or task of this name; without a name, the only one there is. KnowledgeError otherwise."""
        from .lookup import find_loop

        return find_loop(self, name)

    def system_of(self, loop: Loop | Task) -> str | None:
        """Return the name of the system that a loop or task stands in; None for a task of its own."""
        from .lookup import system_of

        return system_of(self, loop)

    def scope(
        self,
        names: Mapping[str, Value] | None = None,
        items: Sequence[Item] = (),
        *,
        system: str | None = None,
    ) -> Scope:
        """Return a scope with this program's facts, functions and constants, for evaluating its expressions.

        `system` decides what a bare name means where several systems declare it.
        """
        from .lookup import scope

        return scope(self, names or {}, items, system)

    def _full(self, kind: str, written: str) -> str:
        from .lookup import full_name

        return full_name(self, kind, written)


def load(path: Path | str, *, tools: Mapping[str, Signature] = TOOLS) -> Program:
    """Read, parse and check a module and all that it uses.

    Raises KnowledgeError with every diagnostic where the module cannot be used, or where the file is not there, not
    readable or not text.
    """
    from .loading import load_file

    return load_file(Path(path), tools)


def load_text(
    text: str,
    path: str = "<text>",
    *,
    tools: Mapping[str, Signature] = TOOLS,
    used: Mapping[str, str] | None = None,
    sealed: bool = False,
) -> Program:
    """Parse and check a module's text; `used` gives the texts of used modules, so that no file is read for them.

    A target that `used` lacks is looked for in the library that ships with Morphogen, then beside `path`. With `sealed`,
    for a text from the log, no file of this machine is read, and only what could change its meaning is checked.
    """
    from .loading import Sources, load_source

    return load_source(text, path, Sources(tools, used or {}, sealed))
