"""Making a program from a checked module, and finding things in it by the names that people write."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from .aggregates import Item
from .check.examine import Examined
from .check.knowledge import is_text
from .check.recursion import called
from .check.walk import nodes
from .diagnostics import Diagnostic, any_of, nearest
from .errors import EvaluateError, KnowledgeError
from .evaluate import Scope, evaluate
from .index import Entry, Index, Kind
from .logic import Value
from .program import CaseInfo, FactInfo, HintInfo, Loop, Program, RuleInfo
from .tree import (
    Artifact,
    Case,
    Constant,
    Expr,
    Fact,
    Field,
    Function,
    Hint,
    Invariant,
    ListExpr,
    Literal,
    Module,
    Name,
    Procedure,
    RecordedFact,
    Rule,
    StateDecl,
    SystemModel,
    Task,
    View,
)
from .types import Type

_SPELLED: tuple[Kind, ...] = ("case", "fact", "function", "procedure", "rule", "loop", "task", "constant")
T = TypeVar("T")


def program_of(
    examined: Examined,
    text: str,
    path: str,
    sha256: str,
    warnings: tuple[Diagnostic, ...],
    used: Mapping[str, str],
    used_modules: Mapping[str, Module],
) -> Program:
    """Return the program that a module without errors is."""
    index = examined.index
    models = (*(one for module in used_modules.values() for one in module.models), *examined.module.models)
    return Program(
        module=examined.module,
        text=text,
        sha256=sha256,
        path=path,
        warnings=warnings,
        used=dict(used),
        used_modules=dict(used_modules),
        systems=dict(index.systems),
        models={one.name: one for one in models},
        cases={entry.full: _case(entry, index) for entry in index.of("case")},
        types={entry.full: index.type_named(entry.name, entry.system) or Type("map") for entry in index.of("type")},
        facts={entry.full: _fact(entry, index) for entry in index.of("fact")},
        recorded=_nodes(index, "recorded", RecordedFact),
        rules={entry.full: _rule(entry, index) for entry in index.of("rule")},
        hints={entry.full: _hint(entry, index) for entry in index.of("hint")},
        invariants=_nodes(index, "invariant", Invariant),
        functions=_nodes(index, "function", Function),
        procedures=_nodes(index, "procedure", Procedure),
        constants=_constants(index),
        states=_nodes(index, "state", StateDecl),
        loops={entry.full: entry.node for entry in index.of("loop")},  # type: ignore[misc]
        tasks=_nodes(index, "task", Task),
        views=_nodes(index, "view", View),
        artifacts=_nodes(index, "artifact", Artifact),
        spellings={kind: _spellings(index, kind) for kind in _SPELLED},
    )


def _nodes(index: Index, kind: Kind, of: type[T]) -> dict[str, T]:
    return {entry.full: entry.node for entry in index.of(kind) if isinstance(entry.node, of)}


def _spellings(index: Index, kind: Kind) -> dict[str, str]:
    found = {}
    for spelling in index.spellings(kind):
        entry = index.find(kind, spelling)
        if entry is not None:
            found[spelling] = entry.full
    return found


def _case(entry: Entry, index: Index) -> CaseInfo:
    assert isinstance(entry.node, Case)
    return CaseInfo(entry.full, entry.system, entry.variant, entry.node, index.fields(entry.node.fields, entry.system))


def _fact(entry: Entry, index: Index) -> FactInfo:
    assert isinstance(entry.node, Fact)
    case = index.find("case", entry.node.case, entry.system)
    return FactInfo(entry.full, entry.system, case.full if case is not None else entry.node.case, entry.node)


def _rule(entry: Entry, index: Index) -> RuleInfo:
    assert isinstance(entry.node, Rule)
    facts, conditions, advice = _conditions(entry.node.when, entry.system, index)
    return RuleInfo(entry.full, entry.system, entry.node, facts, conditions, advice)


def _hint(entry: Entry, index: Index) -> HintInfo:
    assert isinstance(entry.node, Hint)
    facts, conditions, advice = _conditions(entry.node.trigger, entry.system, index)
    return HintInfo(entry.full, entry.system, entry.node, facts, conditions, advice)


def _conditions(
    conditions: Sequence[Expr], system: str, index: Index
) -> tuple[tuple[str, ...], tuple[Expr, ...], tuple[str, ...]]:
    """Return the facts that conditions ask, those that can be executed, and the texts of the others."""
    executable = tuple(one for one in conditions if not is_text(one))
    asked: dict[str, None] = {}
    for condition in executable:
        for name in (*called(condition), *_dotted_names(condition)):
            entry = index.find("fact", name, system)
            if entry is not None:
                asked[entry.full] = None
    advice = tuple(_text(one) for one in conditions if is_text(one))
    return tuple(asked), executable, advice


def _dotted_names(condition: Expr) -> list[str]:
    from .wording import dotted_name

    found = [one for one in nodes(condition) if isinstance(one, (Name, Field))]
    return [name for one in found if (name := dotted_name(one)) is not None]


def _text(condition: Expr) -> str:
    from .wording import source

    return str(condition.value) if isinstance(condition, Literal) else source(condition)


def _constants(index: Index) -> dict[str, Value]:
    """Return the value of every constant; one may name those that are declared before it."""
    values: dict[str, Value] = {}
    for entry in index.of("constant"):
        assert isinstance(entry.node, Constant)
        near = {name.rpartition(".")[2]: value for name, value in values.items() if name.startswith(f"{entry.system}.")}
        functions = {one.name: one.node for one in index.of("function") if isinstance(one.node, Function)}
        try:
            values[entry.full] = evaluate(entry.node.value, Scope(names={**values, **near}, functions=functions))
        except EvaluateError:
            values[entry.full] = None
    return values


# Finding --------------------------------------------------------------------------------------------------------


def full_name(program: Program, kind: str, written: str) -> str:
    """Return the full name of what a spelling means; KnowledgeError that offers the nearest."""
    spellings = program.spellings.get(kind, {})
    if written in spellings:
        return spellings[written]
    near = nearest(written, spellings)
    several = [name for name in dict.fromkeys(spellings.values()) if name.endswith(f".{written}")]
    advice = (
        f"did you mean `{near}`?"
        if near
        else f"it has {any_of(several or list(spellings)[:8])}"
        if spellings
        else "it has none"
    )
    raise KnowledgeError.plain(f"{program.path} has no {kind} `{written}`; {advice}", path=program.path)


def find_loop(program: Program, name: str | None) -> Loop | Task:
    """Return the loop or task of this name; without a name the only one there is."""
    every: dict[str, Loop | Task] = {**program.tasks, **program.loops}
    if name is None:
        own = {key: one for key, one in every.items() if _is_own(program, one)} or every
        if len(own) == 1:
            return next(iter(own.values()))
        if not own:
            raise KnowledgeError.plain(f"{program.path} has no loop and no task", path=program.path)
        raise KnowledgeError.plain(
            f"{program.path} has {len(own)} loops and tasks; name one of {', '.join(own)}", path=program.path
        )
    if name in every:
        return every[name]
    found = [one for key, one in every.items() if key.rpartition(".")[2] == name]
    if len(found) == 1:
        return found[0]
    if found:
        names = [key for key in every if key.rpartition(".")[2] == name]
        raise KnowledgeError.plain(f"`{name}` could be {any_of(names)}; write it in full", path=program.path)
    near = nearest(name, [*every, *(key.rpartition(".")[2] for key in every)])
    advice = f"did you mean `{near}`?" if near else f"it has {', '.join(every) or 'none'}"
    raise KnowledgeError.plain(f"{program.path} has no loop or task `{name}`; {advice}", path=program.path)


def _is_own(program: Program, loop: Loop | Task) -> bool:
    module = program.module
    own: list[Loop | Task] = [*module.tasks]
    for system in module.systems:
        own += [*system.agent_loops, *system.service_loops, *system.engineering_loops, *system.tasks]
    return any(one is loop for one in own)


def system_of(program: Program, loop: Loop | Task) -> str | None:
    """Return the system that a loop or task stands in; None for one of its own."""
    for full, one in {**program.tasks, **program.loops}.items():
        if one is loop:
            return full.rpartition(".")[0] or None
    return None


def scope(program: Program, names: Mapping[str, Value], items: Sequence[Item], system: str | None) -> Scope:
    """Return a scope with a program's facts, functions, constants and models; a system's own names go first."""
    return Scope(
        names=names,
        constants={**_by_spelling(program, "constant", program.constants, system), **_spaces(program, system)},
        items=items,
        facts={name: info.fact for name, info in _by_spelling(program, "fact", program.facts, system).items()},
        functions=_by_spelling(program, "function", program.functions, system),
        model=_model(program),
        case_names=_near(program.spellings.get("case", {}), program.cases, system),
    )


def _by_spelling(program: Program, kind: str, values: Mapping[str, T], system: str | None) -> dict[str, T]:
    names = _near(program.spellings.get(kind, {}), values, system)
    return {spelling: values[full] for spelling, full in names.items() if full in values}


def _near(spellings: Mapping[str, str], values: Mapping[str, object], system: str | None) -> dict[str, str]:
    found = dict(spellings)
    for full in values:
        owner, _, name = full.rpartition(".")
        if owner and owner == system:
            found[name] = full
    return found


def _spaces(program: Program, system: str | None) -> dict[str, Value]:
    """Return the values of a system's spaces that are lists: what a loop goes over."""
    found: dict[str, Value] = {}
    if system is None or system not in program.systems:
        return found
    for space in program.systems[system].spaces:
        for entry in space.entries:
            if isinstance(entry.value, ListExpr):
                found[entry.key] = [
                    one.name if isinstance(one, Name) else evaluate(one, Scope()) for one in entry.value.items
                ]
            elif isinstance(entry.value, Literal):
                found[entry.key] = entry.value.value
    return found


def _model(program: Program) -> SystemModel | None:
    """Return all system models as one, so that `{{axiom.0}}` is the first axiom of the file."""
    models = list(program.models.values())
    if not models:
        return None
    return SystemModel(
        models[0].name,
        tuple(one for model in models for one in model.axioms),
        tuple(one for model in models for one in model.heuristics),
        tuple(one for model in models for one in model.predictions),
    )
