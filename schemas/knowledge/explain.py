"""A module in plain words: what is recorded, what is known, what follows, and what its loops do."""

from collections.abc import Iterable, Iterator, Sequence

from .check.knowledge import is_text
from .diagnostics import nearest
from .errors import KnowledgeError
from .index import Entry, Index, Kind, index_of
from .parse import parse
from .phrases import listed, phrase, type_phrase
from .program import Program
from .tools import TOOLS
from .tree import (
    Action,
    AgentLoop,
    Artifact,
    Assign,
    Case,
    Check,
    Constant,
    Emit,
    EngineeringLoop,
    Expr,
    Fact,
    FieldDecl,
    For,
    Function,
    Hint,
    If,
    Invariant,
    ListExpr,
    Literal,
    Name,
    Node,
    Procedure,
    Property,
    RangeExpr,
    RecordedFact,
    Return,
    Rule,
    ServiceLoop,
    StateDecl,
    Statement,
    Step,
    System,
    Task,
    TypeDecl,
    View,
)
from .wording import source

_EFFECTS = {
    "pure": "changes nothing",
    "read": "reads",
    "write": "writes files of the workspace",
    "external": "acts on the outside",
}
_HEADINGS: tuple[tuple[Kind, str], ...] = (
    ("case", "What is recorded"),
    ("type", "Types"),
    ("constant", "Constants"),
    ("state", "State"),
    ("fact", "Facts that are computed"),
    ("recorded", "Facts that are known"),
    ("rule", "Rules"),
    ("hint", "Hints"),
    ("invariant", "Invariants"),
    ("function", "Functions"),
    ("procedure", "Procedures"),
    ("view", "Views"),
    ("loop", "Loops"),
    ("task", "Tasks"),
    ("artifact", "What is built"),
)


def explain(program: Program, name: str | None = None) -> str:
    """Return a program in plain words, or the one thing of this name; KnowledgeError offers the nearest."""
    module = parse(program.text, program.path).module  # as written: units and words are not converted there
    index = index_of(module, program.used_modules.values())
    if name is not None:
        return "\n".join(_found(index, name, program.path))
    lines = [f"{program.path} ({program.sha256[:12]})"]
    if module.metadata:
        lines += [f"  {key}: {value}" for key, value in module.metadata]
    if module.uses:
        lines += [f"  uses {listed([use.target for use in module.uses], 'and')}"]
    for model in module.models:
        lines += ["", f"System model {model.name}"]
        for word, entries in (
            ("axiom", model.axioms),
            ("heuristic", model.heuristics),
            ("prediction", model.predictions),
        ):
            lines += [f"  {word} {place}: {_text(one)}" for place, one in enumerate(entries)]
    own = [entry for entry in index.entries if not entry.foreign]
    for owner in dict.fromkeys(entry.system for entry in own):
        lines += ["", *_owner(owner, index.systems.get(owner))]
        for kind, heading in _HEADINGS:
            entries_of = [entry for entry in own if entry.system == owner and entry.kind == kind]
            if entries_of:
                lines += ["", f"  {heading}"]
                lines += [f"    {line}" for entry in entries_of for line in _entry(entry, index)]
    return "\n".join(lines)


def _owner(name: str, system: System | None) -> Iterator[str]:
    yield f"{'System' if system is not None else 'Domain'} {name}" if name else "Tasks of this file"
    if system is None:
        return
    if system.description:
        yield f"  {system.description}"
    for space in system.spaces:
        yield f"  The {space.kind} space"
        yield from (f"    {one.key}: {_space(one.value)}" for one in space.entries)


def _found(index: Index, name: str, path: str) -> Iterator[str]:
    kinds = [kind for kind, _ in _HEADINGS]
    found = list(dict.fromkeys(entry for kind in kinds for entry in index.candidates(kind, name)))
    if not found:
        for loop in (entry for entry in index.entries if isinstance(entry.node, (AgentLoop, Task, EngineeringLoop))):
            assert isinstance(loop.node, (AgentLoop, Task, EngineeringLoop))
            for step in loop.node.steps:
                if name in (step.name, f"{loop.name}.{step.name}"):
                    yield f"step of {loop.full}"
                    yield from _step(step)
                    return
        every = [spelling for kind in kinds for spelling in index.spellings(kind)]
        near = nearest(name, every)
        advice = f"did you mean `{near}`?" if near else "`morphogen know explain FILE` shows all there is"
        raise KnowledgeError.plain(f"{path} has nothing called `{name}`; {advice}", path=path)
    for place, entry in enumerate(found):
        if place:
            yield ""
        yield from _entry(entry, index)
        if entry.kind == "fact":
            yield "  only measured items count; where anything that it needs is unknown, it does not hold"
        yield from (f"  {line}" for line in _used_by(entry, index))


def _used_by(entry: Entry, index: Index) -> Iterator[str]:
    """Yield what else of the module stands on this."""
    from .check.recursion import called
    from .check.walk import nodes

    users = []
    for other in index.entries:
        names = {*called(other.node), *(one.name for one in nodes(other.node) if isinstance(one, Name))}
        cases = {one.case.rpartition(".")[2] for one in nodes(other.node) if isinstance(one, (Emit, Fact))}
        reads = entry.name in cases if entry.kind == "case" else entry.name in names
        if reads and other.node is not entry.node:
            users.append(f"{other.kind} {other.full}")
    if users:
        yield f"used by: {listed(list(dict.fromkeys(users)), 'and')}"
    yield f"declared at line {entry.node.span.line}"


def _entry(entry: Entry, index: Index) -> Iterator[str]:
    match entry.node:
        case Case(fields=fields, source=read):
            yield f"{entry.name} ({entry.variant}): " + (
                f"read from the event {read}" if read else "an event of its own"
            )
            yield from _fields(fields)
        case TypeDecl(fields=fields):
            yield f"{entry.name}"
            yield from _fields(fields)
        case Constant(value=value):
            yield f"{entry.name} is {phrase(value)}"
        case StateDecl(type=type_, default=default):
            yield f"{entry.name}: {type_phrase(type_)}" + ("" if default is None else f", at first {phrase(default)}")
        case Fact():
            yield from _fact(entry.node, entry, index)
        case RecordedFact(properties=properties):
            yield entry.name
            yield from (f"  {one.key}: {_text(one.value)}" for one in properties)
        case Rule():
            yield from _rule(entry.node)
        case Hint():
            yield f'"{entry.name}"'
            yield from (f"  comes up when {_condition(one)}" for one in entry.node.trigger)
            yield from (f"  suggests: {_text(one)}" for one in entry.node.suggestion)
        case Invariant(asserts=asserts, properties=properties):
            yield entry.name
            yield from (f"  must hold: {_condition(one)}" for one in asserts)
            yield from (f"  {one.key}: {_text(one.value)}" for one in properties)
        case Function():
            yield from _function(entry.node)
        case Procedure(parameters=parameters, body=body):
            yield f"{entry.name}({', '.join(one.name for one in parameters)})"
            yield from (f"  {line}" for line in _statements(body))
        case View(properties=properties):
            yield entry.name
            yield from (f"  {one.key}: {_text(one.value)}" for one in properties)
        case Artifact(properties=properties):
            yield f"{entry.name}"
            yield from (f"  {one.key}: {_text(one.value)}" for one in properties)
        case _:
            yield from _loop(entry.node)


def _fields(fields: Iterable[FieldDecl]) -> Iterator[str]:
    return (f"  {one.name}: {type_phrase(one.type)}" for one in fields)


def _fact(fact: Fact, entry: Entry, index: Index) -> Iterator[str]:
    case = index.find("case", fact.case, entry.system)
    yield f"{fact.name}: true of {_article(case.name if case else fact.case)} when {phrase(fact.body, fact.parameter)}"


def _rule(rule: Rule) -> Iterator[str]:
    yield f'"{rule.name}"'
    executable = [one for one in rule.when if not is_text(one)]
    advice = [one for one in rule.when if is_text(one)]
    if executable:
        yield f"  fires when {' and '.join(_condition(one) for one in executable)}"
    yield from (f"  in words only, never executed: when {_text(one)}" for one in advice)
    yield from (f"  apply: {_text(one)}" for one in rule.apply)
    yield from (f"  recommend: {_text(one)}" for one in rule.recommend)
    if rule.effect is not None:
        yield f"  effect: {_text(rule.effect)}"
    yield from (f"  set {one.key} to {_space(one.value)}" for one in rule.parameters)
    if rule.optimize is not None:
        yield f"  optimize: {_text(rule.optimize)}"
    yield from (f"  {one.key}: {_text(one.value)}" for one in rule.properties)


def _function(function: Function) -> Iterator[str]:
    given = ", ".join(f"{one.name}: {type_phrase(one.type)}" for one in function.parameters)
    yield f"{function.name}({given}) is {phrase(function.body)}"


def _loop(loop: Node) -> Iterator[str]:
    match loop:
        case AgentLoop(name=name) | Task(name=name):
            kind = "task" if isinstance(loop, Task) else "agent loop"
            yield f"{name}: {_article(kind)} of {_counted(len(loop.steps), 'step')}; it may ask a model and suspends while it waits"
            yield from (f"  {line}" for step in loop.steps for line in _step(step))
            yield from (f"  {line}" for line in _verdict(loop.evaluation, loop.success))
            yield from (f"  {one.key}: {_text(one.value)}" for one in loop.properties)
        case ServiceLoop(name=name, handlers=handlers):
            yield f"{name}: a service loop; it waits for events and never asks a model"
            for handler in handlers:
                yield f"  on {handler.event}({', '.join(handler.parameters)})"
                yield from (f"    {line}" for line in _statements(handler.body))
            yield from (f"  {one.key}: {_text(one.value)}" for one in loop.properties)
        case EngineeringLoop():
            yield from _engineering(loop)


def _engineering(loop: EngineeringLoop) -> Iterator[str]:
    yield f"{loop.name}: an engineering loop; it measures configurations and never asks a model"
    total = 1
    for one in loop.parameters:
        yield f"  {one.key}: {_space(one.value)}"
        total = total * len(one.value.items) if isinstance(one.value, ListExpr) and total else 0
    if total and loop.parameters:
        yield f"  that is {_counted(total, 'configuration')}"
    if loop.measure is not None:
        yield from (f"  {one.key}: {_text(one.value)}" for one in loop.measure.properties)
    yield from (f"  {one.key}: {_text(one.value)}" for one in loop.properties)
    yield from (f"  {line}" for step in loop.steps for line in _step(step))


def _step(step: Step) -> Iterator[str]:
    yield f"step {step.name}"
    yield from (f"  {line}" for line in _statements(step.body))


def _statements(body: Iterable[Statement]) -> Iterator[str]:
    for one in body:
        match one:
            case Action():
                yield from _action(one)
            case Emit(case=case, values=values):
                yield f"records {_article(case)}" + (
                    f" with {listed([f'{each.key} = {phrase(each.value)}' for each in values], 'and')}"
                    if values
                    else ""
                )
            case Assign(name=name, value=value):
                yield f"{name} becomes {phrase(value)}"
            case If(condition=condition, then=then, otherwise=otherwise):
                yield f"if {phrase(condition)}"
                yield from (f"  {line}" for line in _statements(then))
                if otherwise:
                    yield "otherwise"
                    yield from (f"  {line}" for line in _statements(otherwise))
            case For(name=name, items=items, body=inner):
                yield f"for each {name} of {phrase(items)}"
                yield from (f"  {line}" for line in _statements(inner))
            case Return(value=value):
                yield "ends here" + ("" if value is None else f" with {phrase(value)}")


def _action(action: Action) -> Iterator[str]:
    signature = TOOLS.get(action.name)
    effect = f" ({_EFFECTS[signature.effect]})" if signature is not None else ""
    if action.name == "llm.query":
        effect = " (asks a model; the loop may suspend until it answers)"
    output = f"; the result is {action.output}" if action.output else ""
    emitted = "" if action.emit is None else f"; what it prints is recorded as {action.emit or 'trace items'}"
    yield f"{action.name}{effect}{output}{emitted}"
    yield from (f"  {one.key}: {_text(one.value)}" for one in action.arguments)


def _verdict(checks: Sequence[Check], success: Sequence[Expr]) -> Iterator[str]:
    for check in checks:
        yield f"check {check.name}"
        if isinstance(check.body, Action):
            yield from (f"  {line}" for line in _action(check.body))
        else:
            yield f"  {phrase(check.body)}"
    if success:
        yield f"succeeds when {' and '.join(phrase(one) for one in success)}"


def _condition(condition: Expr) -> str:
    if is_text(condition):
        return f"{_text(condition)} (in words only, never executed)"
    if isinstance(condition, Name):
        return f"{condition.name} holds"
    return phrase(condition)


def _text(value: Expr) -> str:
    if isinstance(value, Literal) and isinstance(value.value, str):
        lines = value.value.splitlines()
        return f"{lines[0]} ..." if len(lines) > 1 else value.value
    return source(value).replace("\n", " ")


def _space(value: Expr | Property) -> str:
    if isinstance(value, ListExpr):
        return listed([_text(one) for one in value.items], "or")
    if isinstance(value, RangeExpr):
        step = f" in steps of {source(value.step)}" if value.step is not None else ""
        return f"{source(value.low)} to {source(value.high)}{step}{', logarithmic' if value.log else ''}"
    return _text(value) if not isinstance(value, Property) else _text(value.value)


def _article(word: str) -> str:
    return f"an {word}" if word[:1].lower() in "aeiou" else f"a {word}"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
