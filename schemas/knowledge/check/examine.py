"""The whole check of one module, and the tree that is executed when it passes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..diagnostics import Diagnostic
from ..index import Index, index_of
from ..tools import Signature
from ..tree import Domain, Module, Node, System
from ..types import Type
from .actions import Actions
from .conflicts import Conflicts
from .declarations import Declarations, parameters_of, space_names, spaces_of
from .environment import Environment
from .expressions import Expressions
from .knowledge import Knowledge
from .loops import Loops
from .lowering import lowered
from .reach import Reach
from .recursion import check_recursion
from .report import Report
from .stored import check_stored


@dataclass(frozen=True, slots=True)
class Examined:
    """What a check found, and the module with its units converted. The index is of the converted one."""

    diagnostics: tuple[Diagnostic, ...]
    module: Module
    index: Index


def examine(
    module: Module, tools: Mapping[str, Signature], used: Iterable[Module], *, thorough: bool = True
) -> Examined:
    """Check a module that was parsed, never one that was converted already; `used` modules are not checked again.

    Only a `thorough` check looks for what cannot change what the module means: conditions that never hold, rules that
    contradict each other, cases that cannot be recorded, names that are one word in SQL.
    """
    report = Report()
    used = tuple(used)
    _Module(module, used, tools, report).check()
    executed = lowered(module, report)
    index = index_of(executed, used)
    if not thorough:
        return Examined(report.sorted(), executed, index)
    check_stored(module, used, index, report)
    if not any(one.code == "K304" for one in report.found):  # bodies that contain themselves cannot be looked into
        Conflicts(report, index, Reach(index)).look()
    return Examined(report.sorted(), executed, index)


def _top(module: Module) -> tuple[System | Domain, ...]:
    return (*module.systems, *module.domains)


class _Module:
    def __init__(
        self, module: Module, used: tuple[Module, ...], tools: Mapping[str, Signature], report: Report
    ) -> None:
        self.module = module
        self.report = report
        self.used = used
        self.index = index_of(module, used)
        self.expressions = Expressions(report)
        self.declarations = Declarations(self.expressions, self.index)
        self.knowledge = Knowledge(self.expressions, self.declarations, self.index)
        self.loops = Loops(Actions(self.expressions, self.index, tools), self.declarations, self.index, self._events())

    def _events(self) -> frozenset[str]:
        systems = [system for one in (self.module, *self.used) for system in one.systems]
        return frozenset(
            handler.event for system in systems for loop in system.service_loops for handler in loop.handlers
        )

    def check(self) -> None:
        """Check everything; what is wrong in one place never hides what is wrong in another."""
        module = self.module
        self.declarations.unique((*module.systems, *module.domains), "system or domain")
        self.declarations.unique((*module.tasks, *(one for system in module.systems for one in system.tasks)), "task")
        self.declarations.unique(module.models, "system_model")
        self._clashes()
        for model in module.models:
            env = Environment(self.index, "text")
            for one in (*model.axioms, *model.heuristics, *model.predictions):
                self.expressions.infer(one, env)
        check_recursion(self.index, self.report)
        for domain in module.domains:
            self._domain(domain, {}, {})
        for system in module.systems:
            self._system(system)
        for task in module.tasks:
            self.loops.agent(task, None)

    def _clashes(self) -> None:
        """Refuse a system that a used module declares too: it would be two things under one name."""
        there = {one.name for used in self.used for one in _top(used)}
        for one in _top(self.module):
            if one.name in there:
                self.report.add("K111", one, f"a used module declares `{one.name}` too", hint="rename one of the two")

    def _system(self, system: System) -> None:
        self._unique(system)
        name = system.name
        for constant in system.constants:
            self.expressions.infer(constant.value, Environment(self.index, "constant", name))
        for space in system.spaces:
            self.declarations.space(space, name)
        for type_ in system.types:
            self.declarations.fields(type_.fields, name, f"`{type_.name}`")
        for state in system.states:
            self.declarations.state(state, name)
        for variant in system.variants:
            for case in variant.cases:
                self.declarations.fields(case.fields, name, f"`{case.name}`")
        names = self._names(system)
        spaces = dict(spaces_of(system))
        for fact in system.facts:
            self.knowledge.fact(fact, name)
        for recorded in system.recorded:
            self.knowledge.recorded(recorded, name)
        for rule in system.rules:
            self.knowledge.rule(rule, name, names, spaces)
        for hint in system.hints:
            self.knowledge.hint(hint, name, names, spaces)
        for invariant in system.invariants:
            self.knowledge.invariant(invariant, name, names)
        for domain in system.domains:
            self._domain(domain, names, spaces)
        for function in system.functions:
            self.declarations.function(function, name)
        for view in system.views:
            self.declarations.view(view, name)
        for artifact in system.artifacts:
            self.declarations.artifact(artifact, name)
        self._loops(system)

    def _loops(self, system: System) -> None:
        for procedure in system.procedures:
            self.loops.procedure(procedure, system)
        for agent in system.agent_loops:
            self.loops.agent(agent, system)
        for task in system.tasks:
            self.loops.agent(task, system)
        for service in system.service_loops:
            self.loops.service(service, system)
        for engineering in system.engineering_loops:
            self.loops.engineering(engineering, system)

    def _names(self, system: System) -> dict[str, Type]:
        """Return what a rule of this system may name: chosen values of spaces, parameters of sweeps, states, types."""
        names: dict[str, Type] = {}
        for loop in system.engineering_loops:
            names |= parameters_of(loop)
        names |= space_names(system, chosen=True)
        names |= {one.name: self.index.resolved(one.type, system.name) for one in system.states}
        for one in system.types:
            names.setdefault(one.name, self.index.type_named(one.name, system.name) or Type("any"))
        return names

    def _domain(self, domain: Domain, names: Mapping[str, Type], spaces: Mapping[str, object]) -> None:
        self.declarations.unique(domain.types, "type")
        self.declarations.unique(domain.invariants, "invariant")
        self.declarations.unique(domain.rules, "rule")
        known = dict(names)
        for one in domain.types:
            self.declarations.fields(one.fields, domain.name, f"`{one.name}`")
            known[one.name] = self.index.type_named(one.name, domain.name) or Type("any")
            for name, type_ in self.index.fields(one.fields, domain.name).items():
                known[name] = Type("any") if known.get(name, type_) != type_ else type_
        for rule in domain.rules:
            known.update({one.key: Type("any") for one in rule.parameters if one.key not in known})
        for invariant in domain.invariants:
            self.knowledge.invariant(invariant, domain.name, known)
        for rule in domain.rules:
            self.knowledge.rule(rule, domain.name, known, dict(spaces))  # type: ignore[arg-type]

    def _unique(self, system: System) -> None:
        """Say what a system declares twice, by kind of name."""
        cases = [case for variant in system.variants for case in variant.cases]
        groups: tuple[tuple[str, tuple[Node, ...]], ...] = (
            ("variant", system.variants),
            ("case", tuple(cases)),
            ("type", system.types),
            ("fact", (*system.facts, *system.recorded)),
            ("rule", system.rules),
            ("hint", system.hints),
            ("invariant", system.invariants),
            ("function or procedure", (*system.functions, *system.procedures)),
            ("constant or state", (*system.constants, *system.states)),
            ("loop", (*system.agent_loops, *system.service_loops, *system.engineering_loops)),
            ("view", system.views),
            ("artifact", system.artifacts),
            ("domain", system.domains),
        )
        for what, nodes in groups:
            self.declarations.unique(nodes, what)
        kinds = ("design", "tuning")
        entries = [one for kind in kinds for space in system.spaces if space.kind == kind for one in space.entries]
        self.declarations.unique(entries, "space entry")
