"""Modules that the log holds: what the text in force for a system says that can run."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from morphogen.schemas.knowledge.cases import words_of
from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.program import CaseInfo, HintInfo, Program, RuleInfo, load_text
from morphogen.schemas.knowledge.stream import Condition, NotExecutable, combined, condition, lower_expression
from morphogen.schemas.knowledge.tree import Binary as BinaryExpr
from morphogen.schemas.knowledge.tree import Call, Expr, Field, Name, Unary

from .loads import Loaded

_log = logging.getLogger("morphogen.projections")


@dataclass(frozen=True)
class Judge:
    """A rule or a hint that can run: `together` where all that it asks is of one case, else by the facts that it asks."""

    kind: str  # rule | hint
    name: str
    when: tuple[Expr, ...]
    facts: tuple[str, ...]
    together: Condition | None
    actions: dict[str, Any]


@dataclass(frozen=True)
class Advice:
    """A rule or a hint with conditions of text, which nothing can run."""

    kind: str
    name: str
    conditions: tuple[str, ...]
    actions: dict[str, Any]


class Module:
    """One system of a loaded text, ready to run. What of it cannot run is in `refused`, with the reason."""

    def __init__(self, system: str, loaded: Loaded, program: Program) -> None:
        self.system = system
        self.loaded = loaded
        self.program = program
        self.refused: dict[str, str] = {}
        self.facts: dict[str, Condition] = {}
        for name, info in program.facts.items():
            if info.system == system:
                try:
                    self.facts[name] = condition(program, name)
                except NotExecutable as error:
                    self.refused[name] = str(error)

    @property
    def cases(self) -> dict[str, CaseInfo]:
        """The cases that this system declares, by full name."""
        return {name: info for name, info in self.program.cases.items() if info.system == self.system}

    @cached_property
    def judges(self) -> list[Judge]:
        """Rules and hints with conditions that can run."""
        found = []
        for kind, one in self._ruled():
            if not one.conditions or one.advice:
                continue
            try:
                found.append(_judge(self.program, kind, one))
            except NotExecutable as error:
                self.refused[one.name] = str(error)
        return found

    @cached_property
    def advice(self) -> list[Advice]:
        """Rules and hints that are for a person or a model: with a condition of text, or with none."""
        found = []
        for kind, one in self._ruled():
            if one.advice or not one.conditions:
                found.append(Advice(kind, one.name, one.advice, actions_of(one)))
        return found

    def _ruled(self) -> list[tuple[str, RuleInfo | HintInfo]]:
        every: list[tuple[str, RuleInfo | HintInfo]] = [("rule", one) for one in self.program.rules.values()]
        every += [("hint", one) for one in self.program.hints.values()]
        return [(kind, one) for kind, one in every if one.system == self.system]


def modules_of(loaded: Mapping[str, Loaded]) -> list[Module]:
    """Return the systems that are understood, in the order of their names; of two with one name in SQL the first."""
    found: list[Module] = []
    taken: dict[str, str] = {}
    for system, one in loaded.items():
        module = module_of(system, one)
        if module is None:
            continue
        words = [word for word, _, _ in words_of(module.program.systems[system])]
        other = next((taken[word] for word in words if word in taken), None)
        if other is None:
            taken.update(dict.fromkeys(words, system))
            found.append(module)
        else:
            _leave_out(system, one, f"{other} has the same names in SQL: `morphogen know drop` one of them")
    return found


def module_of(system: str, loaded: Loaded) -> Module | None:
    """Return a system ready to run, or None, with one warning, where its text is not understood any more."""
    program = _program(loaded.text, loaded.path, loaded.used)
    if isinstance(program, str):
        _leave_out(system, loaded, program)
        return None
    if system not in program.systems:
        _leave_out(system, loaded, f"its text declares {', '.join(program.systems) or 'none'}")
        return None
    return _module(system, loaded, program)


_warned: set[tuple[str, str]] = set()


def _leave_out(system: str, loaded: Loaded, reason: str) -> None:
    if (loaded.sha256, system) not in _warned:
        _warned.add((loaded.sha256, system))
        _log.warning("system %s, loaded at message %d, is left out: %s", system, loaded.seq, reason)


@lru_cache(maxsize=64)
def _program(text: str, path: str, used: tuple[tuple[str, str], ...]) -> Program | str:
    try:
        return load_text(text, path, used=dict(used), sealed=True)
    except KnowledgeError as error:
        return str(error)
    except RecursionError:
        return f"{path}: the module is nested too deeply to be read here"


_modules: dict[tuple[str, str, int], Module] = {}


def _module(system: str, loaded: Loaded, program: Program) -> Module:
    key = (system, loaded.sha256, loaded.seq)
    if key not in _modules or _modules[key].program is not program:
        if len(_modules) > 256:
            _modules.clear()
        _modules[key] = Module(system, loaded, program)
    return _modules[key]


def actions_of(one: RuleInfo | HintInfo) -> dict[str, Any]:
    """Return what a rule or a hint says to do, by its own keys, as plain values and, where it computes, as its text."""
    if isinstance(one, HintInfo):
        actions: dict[str, Any] = {"suggestion": [_plain(expr) for expr in one.hint.suggestion]}
        properties = one.hint.properties
    else:
        rule = one.rule
        actions = {
            "apply": [_plain(expr) for expr in rule.apply],
            "recommend": [_plain(expr) for expr in rule.recommend],
            "effect": None if rule.effect is None else _plain(rule.effect),
            "parameter": {prop.key: _plain(prop.value) for prop in rule.parameters},
            "optimize": None if rule.optimize is None else _plain(rule.optimize),
        }
        properties = rule.properties
    actions.update({prop.key: _plain(prop.value) for prop in properties})
    return {name: value for name, value in actions.items() if value not in (None, [], {})}


def _plain(expr: Expr) -> Any:
    from morphogen.schemas.knowledge.tree import ListExpr, Literal, MapExpr
    from morphogen.schemas.knowledge.wording import source

    match expr:
        case Literal(value=value, unit=None):
            return value
        case Name(name=name):
            return name
        case ListExpr(items=items):
            return [_plain(one) for one in items]
        case MapExpr(items=items):
            return {one.key: _plain(one.value) for one in items}
        case _:
            return source(expr)


def _judge(program: Program, kind: str, one: RuleInfo | HintInfo) -> Judge:
    """Return a rule as what can run: one condition where all that it asks is of one case, else by its facts."""
    facts = {name: program.facts[name] for name in one.facts}
    if not facts:
        raise NotExecutable("its conditions ask no fact about the trace")
    cases = {info.case for info in facts.values()}
    together = None
    if len(cases) == 1:
        info = program.cases[cases.pop()]
        scope = program.scope(system=one.system)
        item = "t"
        spelled = _spellings(program, one.system)
        bodies = [lower_expression(_asked(expr, spelled, item), info.fields, scope, item) for expr in one.conditions]
        if any(body.kind not in ("flag", "nothing") for body in bodies):
            raise NotExecutable("a condition is no truth value: compare it with something")
        together = combined(one.name, info.name, bodies)
    return Judge(kind, one.name, one.conditions, one.facts, together, actions_of(one))


def _spellings(program: Program, system: str) -> frozenset[str]:
    return frozenset(program.scope(system=system).facts)


def _asked(expr: Expr, facts: frozenset[str], item: str) -> Expr:
    """Return a condition in which each fact that is only named is asked of the item, and so is one that is called."""
    match expr:
        case Name(name=name) if name in facts:
            return Call(name, (Name(item),))
        case Field() if (dotted := _dotted(expr)) in facts:
            return Call(str(dotted), (Name(item),))
        case Call(name=name) if name in facts:
            return Call(name, (Name(item),))
        case Unary(op=op, operand=operand):
            return Unary(op, _asked(operand, facts, item))
        case BinaryExpr(op=op, left=left, right=right):
            return BinaryExpr(op, _asked(left, facts, item), _asked(right, facts, item))
        case _:
            return expr


def _dotted(expr: Expr) -> str | None:
    if isinstance(expr, Name):
        return expr.name
    if isinstance(expr, Field):
        base = _dotted(expr.base)
        return None if base is None else f"{base}.{expr.name}"
    return None


def truth_of(judge: Judge, program: Program, system: str, truths: Mapping[str, bool | None]) -> bool:
    """Tell whether the conditions of a rule over several cases hold, given what is true of its facts in a run.

    A fact of which no item was seen yet is unknown.
    """
    from morphogen.schemas.knowledge.evaluate import holds

    scope = program.scope(system=system)
    names: dict[str, Any] = {}
    for spelling, fact in scope.facts.items():
        full = next((name for name in judge.facts if program.facts[name].fact is fact), None)
        if full is not None:
            names[spelling] = truths.get(full)
    blind = scope.with_names(names)
    return all(holds(_named(expr, frozenset(names)), blind) for expr in judge.when)


def _named(expr: Expr, facts: frozenset[str]) -> Expr:
    """Return a condition in which each fact stands as a name whose value is given."""
    match expr:
        case Call(name=name) if name in facts:
            return Name(name)
        case Field() if (dotted := _dotted(expr)) in facts:
            return Name(str(dotted))
        case Unary(op=op, operand=operand):
            return Unary(op, _named(operand, facts))
        case BinaryExpr(op=op, left=left, right=right):
            return BinaryExpr(op, _named(left, facts), _named(right, facts))
        case _:
            return expr
