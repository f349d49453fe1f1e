"""Whole valid programs, drawn from the tree: Hypothesis strategies for every node, and a writer of their source.

The writer gives atoms, between which any blank, line break or comment may stand.
"""

import random
import re
from collections.abc import Iterable, Iterator
from typing import Any

from hypothesis import strategies as st

from morphogen.schemas.knowledge import tree as t
from morphogen.schemas.knowledge.keywords import CONSTANTS, KEYWORDS
from morphogen.schemas.knowledge.strings import quote
from morphogen.schemas.knowledge.units import UNITS

LOGIC = {"and", "or", "not", "in"}
SPECIAL = {"if", "for", "emit", "return", "else", "range", "output_var"}
WORDS = st.sampled_from([*KEYWORDS, "x", "tile_m", "größe", "tflops", "success", "s", "ms", "B", "m", "_", "名前"])
NAMES = WORDS.filter(lambda word: word not in LOGIC | set(CONSTANTS) | SPECIAL)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TITLES = st.one_of(WORDS, TEXT)
FEW = 3


def some(strategy: st.SearchStrategy[Any], most: int = FEW) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=most).map(tuple)


def dotted(words: st.SearchStrategy[str], least: int = 1) -> st.SearchStrategy[str]:
    return st.lists(words, min_size=least, max_size=3).map(".".join)


# Expressions ----------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-(10**18), 10**18), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0, 1, -1, 0.5])
)
LITERALS = st.one_of(
    st.builds(t.Literal, st.one_of(st.none(), st.booleans(), NUMBERS, TEXT)),
    st.builds(t.Literal, NUMBERS, st.sampled_from([*UNITS, "m"])),
)
OPERATORS = ("+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "and", "or", "in", "not in")
GROUPS = NAMES.filter(lambda word: word not in {"parameter", "step", "check", "state"})
WINDOWS = st.one_of(
    st.builds(t.Window, last=st.integers(1, 10**6), per=some(GROUPS)),
    st.builds(t.Window, duration_ns=st.integers(1, 10**15), per=some(GROUPS)),
    st.builds(t.Window, per=st.lists(GROUPS, min_size=1, max_size=2).map(tuple)),
)


def _compound(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    properties = some(st.builds(t.Property, KEYS, inner))
    return st.one_of(
        st.builds(t.Field, inner, WORDS),
        st.builds(t.Index, inner, inner),
        st.builds(t.Unary, st.just("not"), inner),
        st.builds(t.Unary, st.just("-"), inner.filter(lambda one: not _is_number(one))),
        st.builds(t.Binary, st.sampled_from(OPERATORS), inner, inner),
        st.builds(t.Call, dotted(NAMES), some(inner), st.none() | WINDOWS),
        st.builds(t.ListExpr, some(inner)),
        st.builds(t.MapExpr, properties),
        st.builds(t.RangeExpr, inner, inner, st.none() | inner, st.booleans()),
    )


def _is_number(node: Any) -> bool:
    return isinstance(node, t.Literal) and type(node.value) in {int, float}


KEYS = st.one_of(WORDS, TEXT).filter(lambda key: key != "output_var")
HOLES = st.recursive(
    st.builds(t.Name, NAMES),
    lambda inner: st.one_of(
        st.builds(t.Field, inner, WORDS),
        st.builds(t.Index, inner, st.builds(t.Literal, st.integers(0, 99))),
        st.builds(t.Binary, st.sampled_from(OPERATORS), inner, inner),
        st.builds(t.Call, dotted(NAMES), some(inner)),
    ),
    max_leaves=3,
)


@st.composite
def templates(draw: st.DrawFn) -> t.Template:
    parts: list[Any] = []
    for _ in range(draw(st.integers(1, 2))):
        parts += [draw(TEXT), draw(HOLES)]
    parts.append(draw(TEXT))
    return t.Template(tuple(part for part in parts if part != ""))


EXPRESSIONS = st.recursive(st.one_of(LITERALS, st.builds(t.Name, NAMES), templates()), _compound, max_leaves=6)
SINGLE = EXPRESSIONS.filter(lambda one: not isinstance(one, t.ListExpr))  # where a list is read as several


def properties(*reserved: str) -> st.SearchStrategy[tuple[t.Property, ...]]:
    return some(st.builds(t.Property, KEYS.filter(lambda key: key not in reserved), EXPRESSIONS))


# Types ----------------------------------------------------------------------------------------------------------

UNITLESS = st.builds(t.NamedType, dotted(NAMES))
TYPES = st.recursive(
    st.one_of(
        UNITLESS,
        st.builds(t.NamedType, st.sampled_from(["int", "float"]), st.sampled_from(sorted(UNITS))),
        st.builds(t.EnumType, st.lists(TEXT, min_size=1, max_size=3).map(tuple)),
        st.builds(t.EnumType, st.lists(NUMBERS, min_size=1, max_size=3).map(tuple)),
        st.builds(t.EnumType, st.just((True, False))),
        st.builds(t.ListType, st.just(t.NamedType("int")), st.lists(NAMES, min_size=2, max_size=3).map(tuple)),
    ),
    lambda inner: st.one_of(
        st.builds(t.ListType, inner),
        st.builds(t.OptionalType, inner.filter(lambda one: not isinstance(one, t.OptionalType))),
    ),
    max_leaves=3,
)
FIELDS = some(st.builds(t.FieldDecl, WORDS, TYPES))

# Statements -----------------------------------------------------------------------------------------------------

VARIABLES = dotted(NAMES)
CASES = dotted(NAMES.filter(lambda word: word not in {"step", "check", "evaluation", "success"}))
ACTIONS = st.builds(
    t.Action,
    dotted(NAMES, 2),
    properties("output_var"),
    st.none() | VARIABLES,
    st.one_of(st.none(), st.just(""), CASES),
)
EVENTS = st.one_of(dotted(NAMES), TEXT)
SIMPLE = st.one_of(
    ACTIONS,
    st.builds(t.Emit, EVENTS, properties()),
    st.builds(t.Assign, VARIABLES, EXPRESSIONS),
    st.builds(t.Return, st.none() | EXPRESSIONS),
)
STATEMENTS: st.SearchStrategy[tuple[Any, ...]] = some(
    st.recursive(
        SIMPLE,
        lambda inner: st.one_of(
            st.builds(t.If, EXPRESSIONS, some(inner, 2), some(inner, 2)),
            st.builds(t.For, NAMES, EXPRESSIONS, some(inner, 2)),
        ),
        max_leaves=3,
    )
)
STEPS = some(st.builds(t.Step, TITLES, STATEMENTS), 2)
CHECKS = some(st.builds(t.Check, KEYS, st.one_of(ACTIONS, EXPRESSIONS)), 2)
MANY = some(SINGLE, 2)
LOOP_PROPERTIES = properties("success")

# Declarations ---------------------------------------------------------------------------------------------------

TYPE_DECLARATIONS = some(st.builds(t.TypeDecl, TITLES, FIELDS), 2)
INVARIANTS = some(st.builds(t.Invariant, TITLES, MANY, properties("assert")), 2)
RULES = some(
    st.builds(
        t.Rule,
        TITLES,
        MANY,
        MANY,
        MANY,
        st.none() | EXPRESSIONS,
        properties(),
        st.none() | EXPRESSIONS,
        properties("when", "apply", "recommend", "effect", "optimize"),
    ),
    2,
)
TASKS = some(st.builds(t.Task, TITLES, STEPS, CHECKS, MANY, LOOP_PROPERTIES), 1)
DOMAINS = some(st.builds(t.Domain, TITLES, TYPE_DECLARATIONS, INVARIANTS, RULES), 1)
CASE_DECLARATIONS = some(st.builds(t.Case, TITLES, FIELDS, st.none() | TEXT), 2)


@st.composite
def handlers(draw: st.DrawFn) -> t.Handler:
    declared = draw(some(st.builds(t.FieldDecl, WORDS, TYPES), 2))
    bare = draw(some(NAMES, 2))
    return t.Handler(draw(EVENTS), (*(one.name for one in declared), *bare), draw(STATEMENTS), declared)


SYSTEMS = st.builds(
    t.System,
    TITLES,
    st.none() | TEXT,
    some(st.builds(t.Constant, WORDS, EXPRESSIONS), 2),
    some(st.builds(t.Space, st.sampled_from(["design", "tuning"]), properties()), 2),
    TYPE_DECLARATIONS,
    some(st.builds(t.StateDecl, WORDS, TYPES, st.none() | EXPRESSIONS), 2),
    some(st.builds(t.Variant, TITLES, CASE_DECLARATIONS), 1),
    some(st.builds(t.Fact, TITLES, WORDS, dotted(NAMES), EXPRESSIONS), 2),
    some(st.builds(t.RecordedFact, TITLES, properties()), 1),
    RULES,
    some(st.builds(t.Hint, TITLES, MANY, MANY, properties("trigger", "suggestion")), 1),
    INVARIANTS,
    DOMAINS,
    some(st.builds(t.View, TITLES, properties()), 1),
    some(st.builds(t.Function, TITLES, FIELDS, st.none() | TYPES, EXPRESSIONS), 1),
    some(st.builds(t.Procedure, TITLES, FIELDS, STATEMENTS), 1),
    some(st.builds(t.AgentLoop, TITLES, STEPS, CHECKS, MANY, LOOP_PROPERTIES), 1),
    some(st.builds(t.ServiceLoop, TITLES, some(handlers(), 2), properties()), 1),
    some(
        st.builds(
            t.EngineeringLoop, TITLES, properties(), st.none() | st.builds(t.Measure, properties()), STEPS, properties()
        ),
        1,
    ),
    some(st.builds(t.Artifact, st.one_of(dotted(NAMES), TEXT), properties()), 1),
    TASKS,
    properties("description"),
)
METADATA = some(
    st.tuples(st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.from_regex(r"([a-z\[\]]{1,9})?", fullmatch=True)), 2
)
MODULES = st.builds(
    t.Module,
    METADATA,
    some(st.builds(t.Use, st.one_of(dotted(NAMES), TEXT)), 2),
    some(st.builds(t.SystemModel, TITLES, MANY, MANY, MANY), 1),
    TASKS,
    some(SYSTEMS, 1),
    DOMAINS,
)

# Source ---------------------------------------------------------------------------------------------------------

LEVELS = {"or": 1, "and": 2, "not": 3} | dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in", "not in"), 4)
LEVELS |= {"+": 5, "-": 5, "*": 6, "/": 6, "%": 6}
WORD = re.compile(r"[^\W\d]\w*")


def _level(node: Any) -> int:
    if isinstance(node, t.Binary):
        return LEVELS[node.op]
    if isinstance(node, t.Unary):
        return 3 if node.op == "not" else 7
    if isinstance(node, t.Literal) and type(node.value) in {int, float}:
        return 7 if str(node.value).startswith("-") else 8
    if isinstance(node, t.Call) and node.window is not None:
        return 8
    return 9 if isinstance(node, t.Name | t.Field | t.Index | t.Call) else 8


def _inside(node: Any, level: int) -> Iterator[str]:
    if _level(node) < level:
        yield "("
        yield from write(node)
        yield ")"
    else:
        yield from write(node)


def _listed(items: Iterable[Any]) -> Iterator[str]:
    for index, item in enumerate(items):
        if index:
            yield ","
        atoms = list(write(item))
        # The names of a window are parted by commas too, and take all that they can.
        yield from ("(", *atoms, ")") if atoms[-1].startswith("per ") else atoms


def _key(name: str) -> str:
    return f"{name}:" if WORD.fullmatch(name) else f"{quote(name)}:"


def _title(name: str) -> str:
    return name if WORD.fullmatch(name) else quote(name)


def _file(name: str) -> str:
    good = all(WORD.fullmatch(part) and part not in SPECIAL for part in name.split("."))
    return name if good else quote(name)


def _keyed(key: str, values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        yield f"{key}:"
        yield from write(value)


def _block(*parts: Iterable[str]) -> Iterator[str]:
    yield "{"
    for part in parts:
        yield from part
    yield "}"


def _each(items: Iterable[Any]) -> Iterator[str]:
    for item in items:
        yield from write(item)


def _hole(node: Any) -> str:
    return "{{" + " ".join(write(node)) + "}}"


def write(node: Any) -> Iterator[str]:
    """Give the atoms of a node's source."""
    yield from getattr(Writer, type(node).__name__)(node)


class Writer:
    """One writer a node."""

    @staticmethod
    def Literal(node: t.Literal) -> Iterator[str]:
        value = node.value
        if isinstance(value, str):
            yield quote(value)
        elif value is None or isinstance(value, bool):
            yield {None: "null", True: "true", False: "false"}[value]
        else:
            yield repr(value) + ("" if node.unit is None else node.unit if node.unit == "%" else f" {node.unit}")

    @staticmethod
    def Template(node: t.Template) -> Iterator[str]:
        parts = [
            "\\{".join(quote(piece)[1:-1] for piece in part.split("{")) if isinstance(part, str) else _hole(part)
            for part in node.parts
        ]
        yield f'"{"".join(parts)}"'

    @staticmethod
    def Name(node: t.Name) -> Iterator[str]:
        yield node.name

    @staticmethod
    def Field(node: t.Field) -> Iterator[str]:
        yield from _inside(node.base, 9)
        yield "."
        yield node.name

    @staticmethod
    def Index(node: t.Index) -> Iterator[str]:
        yield from _inside(node.base, 9)
        yield "["
        yield from write(node.index)
        yield "]"

    @staticmethod
    def Unary(node: t.Unary) -> Iterator[str]:
        yield node.op
        yield from _inside(node.operand, 3 if node.op == "not" else 7)

    @staticmethod
    def Binary(node: t.Binary) -> Iterator[str]:
        level = LEVELS[node.op]
        yield from _inside(node.left, level + (level == 4))
        yield node.op
        yield from _inside(node.right, level + 1)

    @staticmethod
    def Call(node: t.Call) -> Iterator[str]:
        yield node.name
        yield "("
        yield from _listed(node.args)
        yield ")"
        if node.window is not None:
            window = node.window
            if window.last is not None:
                yield from ("over", "last", str(window.last))
            if window.duration_ns is not None:
                yield from ("over", f"{window.duration_ns}ns")
            if window.per:
                yield "per " + ", ".join(window.per)

    @staticmethod
    def ListExpr(node: t.ListExpr) -> Iterator[str]:
        yield "["
        yield from _listed(node.items)
        yield "]"

    @staticmethod
    def MapExpr(node: t.MapExpr) -> Iterator[str]:
        yield from _block(_each(node.items))

    @staticmethod
    def RangeExpr(node: t.RangeExpr) -> Iterator[str]:
        yield "range ["
        yield from _listed([node.low, node.high, *([] if node.step is None else [node.step])])
        yield "]"
        if node.log:
            yield "log"

    @staticmethod
    def Property(node: t.Property) -> Iterator[str]:
        yield _key(node.key)
        yield from write(node.value)

    @staticmethod
    def NamedType(node: t.NamedType) -> Iterator[str]:
        yield node.name
        if node.unit is not None:
            yield from ("in", node.unit)

    @staticmethod
    def EnumType(node: t.EnumType) -> Iterator[str]:
        for index, value in enumerate(node.values):
            if index:
                yield "|"
            yield from write(t.Literal(value))

    @staticmethod
    def ListType(node: t.ListType) -> Iterator[str]:
        yield "["
        if node.sizes:
            yield " , ".join(node.sizes)
        else:
            yield from write(node.item)
        yield "]"

    @staticmethod
    def OptionalType(node: t.OptionalType) -> Iterator[str]:
        yield from write(node.item)
        yield "?"

    @staticmethod
    def FieldDecl(node: t.FieldDecl) -> Iterator[str]:
        yield f"{node.name}:"
        yield from write(node.type)

    @staticmethod
    def Action(node: t.Action) -> Iterator[str]:
        """An action where one without `name =` stands."""
        yield node.name
        output = [] if node.output is None else ["output_var:", node.output]
        yield from _block(_each(node.arguments), output)
        if node.emit is not None:
            yield "-> emit\n" if node.emit == "" else f"-> emit {node.emit}"

    @staticmethod
    def Emit(node: t.Emit) -> Iterator[str]:
        yield "emit"
        yield _file(node.case)
        if node.values:
            yield from _block(_each(node.values))

    @staticmethod
    def Assign(node: t.Assign) -> Iterator[str]:
        yield node.name
        yield "="
        yield from write(node.value)

    @staticmethod
    def If(node: t.If) -> Iterator[str]:
        yield "if"
        yield from write(node.condition)
        yield from _block(_each(node.then))
        if node.otherwise:
            yield "else"
            if len(node.otherwise) == 1 and isinstance(node.otherwise[0], t.If):
                yield from write(node.otherwise[0])
            else:
                yield from _block(_each(node.otherwise))

    @staticmethod
    def For(node: t.For) -> Iterator[str]:
        yield from ("for", node.name, "in")
        yield from write(node.items)
        yield from _block(_each(node.body))

    @staticmethod
    def Return(node: t.Return) -> Iterator[str]:
        if node.value is None:
            yield "return ;"
        else:
            yield "return"
            yield from write(node.value)

    @staticmethod
    def Step(node: t.Step) -> Iterator[str]:
        yield "step"
        if len(node.body) == 1 and not isinstance(node.body[0], t.Return):
            yield _key(node.name)
            yield from write(node.body[0])
        else:
            yield _title(node.name)
            yield from _block(_each(node.body))

    @staticmethod
    def Check(node: t.Check) -> Iterator[str]:
        yield from ("check", _key(node.name))
        yield from write(node.body)

    @staticmethod
    def SystemModel(node: t.SystemModel) -> Iterator[str]:
        yield from ("system_model", _title(node.name))
        yield from _block(
            _keyed("axiom", node.axioms), _keyed("heuristic", node.heuristics), _keyed("prediction", node.predictions)
        )

    @staticmethod
    def _loop(node: t.Task | t.AgentLoop) -> Iterator[str]:
        yield _title(node.name)
        checks = ["evaluation", *_block(_each(node.evaluation))] if node.evaluation else []
        success = ["success:", *_listed(node.success)] if node.success else []
        yield from _block(_each(node.properties), _each(node.steps), checks, success)

    @staticmethod
    def Task(node: t.Task) -> Iterator[str]:
        yield "task"
        yield from Writer._loop(node)

    @staticmethod
    def AgentLoop(node: t.AgentLoop) -> Iterator[str]:
        yield "agent_loop"
        yield from Writer._loop(node)

    @staticmethod
    def Space(node: t.Space) -> Iterator[str]:
        yield f"{node.kind}_space"
        yield from _block(_each(node.entries))

    @staticmethod
    def TypeDecl(node: t.TypeDecl) -> Iterator[str]:
        yield from ("type", _title(node.name), "matches")
        yield from _block(_each(node.fields))

    @staticmethod
    def StateDecl(node: t.StateDecl) -> Iterator[str]:
        yield from ("state", f"{node.name}:")
        yield from write(node.type)
        if node.default is not None:
            yield "="
            yield from write(node.default)

    @staticmethod
    def Constant(node: t.Constant) -> Iterator[str]:
        yield from ("const", node.name, "=")
        yield from write(node.value)

    @staticmethod
    def Case(node: t.Case) -> Iterator[str]:
        yield from ("case", _title(node.name))
        if node.source is not None:
            yield from ("from", quote(node.source))
        yield from _block(_each(node.fields))

    @staticmethod
    def Variant(node: t.Variant) -> Iterator[str]:
        yield from ("variant", _title(node.name))
        yield from _block(_each(node.cases))

    @staticmethod
    def Fact(node: t.Fact) -> Iterator[str]:
        yield from ("fact", _title(node.name), "(", f"{node.parameter}:", node.case, ")", "{", "return")
        yield from write(node.body)
        yield "}"

    @staticmethod
    def RecordedFact(node: t.RecordedFact) -> Iterator[str]:
        yield from ("fact", _title(node.name))
        yield from _block(_each(node.properties))

    @staticmethod
    def Rule(node: t.Rule) -> Iterator[str]:
        yield from ("rule", _title(node.name))
        parameters = (atom for one in node.parameters for atom in ("parameter", *write(one)))
        yield from _block(
            _keyed("when", [t.ListExpr(node.when)]),
            _keyed("apply", node.apply),
            _keyed("recommend", node.recommend),
            _keyed("effect", [] if node.effect is None else [node.effect]),
            parameters,
            _keyed("optimize", [] if node.optimize is None else [node.optimize]),
            _each(node.properties),
        )

    @staticmethod
    def Hint(node: t.Hint) -> Iterator[str]:
        yield from ("hint", _title(node.name))
        yield from _block(
            _keyed("trigger", node.trigger), _keyed("suggestion", node.suggestion), _each(node.properties)
        )

    @staticmethod
    def Invariant(node: t.Invariant) -> Iterator[str]:
        yield from ("invariant", _title(node.name))
        yield from _block(_keyed("assert", node.asserts), _each(node.properties))

    @staticmethod
    def Domain(node: t.Domain) -> Iterator[str]:
        yield from ("domain", _title(node.name))
        yield from _block(_each(node.types), _each(node.invariants), _each(node.rules))

    @staticmethod
    def Handler(node: t.Handler) -> Iterator[str]:
        yield from ("on", _file(node.event))
        bare = node.parameters[len(node.declared) :]
        yield "("
        for index, one in enumerate([*node.declared, *bare]):
            if index:
                yield ","
            yield from (one,) if isinstance(one, str) else write(one)
        yield ")"
        yield from _block(_each(node.body))

    @staticmethod
    def ServiceLoop(node: t.ServiceLoop) -> Iterator[str]:
        yield from ("service_loop", _title(node.name))
        yield from _block(_each(node.properties), _each(node.handlers))

    @staticmethod
    def Measure(node: t.Measure) -> Iterator[str]:
        yield "measure"
        yield from _block(_each(node.properties))

    @staticmethod
    def EngineeringLoop(node: t.EngineeringLoop) -> Iterator[str]:
        yield from ("engineering_loop", _title(node.name))
        parameters = (atom for one in node.parameters for atom in ("parameter", *write(one)))
        measure = [] if node.measure is None else write(node.measure)
        yield from _block(_each(node.properties), parameters, measure, _each(node.steps))

    @staticmethod
    def Artifact(node: t.Artifact) -> Iterator[str]:
        yield from ("artifact", _file(node.name))
        if node.properties:
            yield from _block(_each(node.properties))

    @staticmethod
    def View(node: t.View) -> Iterator[str]:
        yield from ("view", _title(node.name))
        yield from _block(_each(node.properties))

    @staticmethod
    def Function(node: t.Function) -> Iterator[str]:
        yield from ("function", _title(node.name), "(")
        yield from _listed(node.parameters)
        yield ")"
        if node.returns is not None:
            yield ":"
            yield from write(node.returns)
        yield from ("{", "return")
        yield from write(node.body)
        yield "}"

    @staticmethod
    def Procedure(node: t.Procedure) -> Iterator[str]:
        yield from ("procedure", _title(node.name), "(")
        yield from _listed(node.parameters)
        yield ")"
        yield from _block(_each(node.body))

    @staticmethod
    def Use(node: t.Use) -> Iterator[str]:
        yield from ("use", _file(node.target))

    @staticmethod
    def System(node: t.System) -> Iterator[str]:
        yield from ("system", _title(node.name))
        sections: list[Iterable[str]] = []
        if node.description is not None:
            sections.append(("description:", quote(node.description)))
        sections += [_each(node.properties), _each(node.constants), _each(node.spaces)]
        sections.append(("model", *_block(_each(node.types), _each(node.states))))
        sections.append(("trace_schema", *_block(_each(node.variants))))
        claims = (node.facts, node.recorded, node.rules, node.hints, node.invariants)
        sections.append(("knowledge", *_block(*(_each(one) for one in claims))))
        rest = (node.domains, node.views, node.functions, node.procedures, node.agent_loops, node.service_loops)
        sections += [_each(one) for one in (*rest, node.engineering_loops, node.tasks)]
        sections.append(("build", *_block(_each(node.artifacts))))
        yield from _block(*sections)

    @staticmethod
    def Module(node: t.Module) -> Iterator[str]:
        for items in (node.uses, node.models, node.tasks, node.systems, node.domains):
            yield from _each(items)


def front_matter(module: t.Module) -> str:
    """Write the metadata of a module."""
    if not module.metadata:
        return ""
    return "---\n" + "".join(f"{key}: {value}\n" for key, value in module.metadata) + "---\n"


def plain_source(module: t.Module) -> str:
    """Write a module with a blank between any two atoms."""
    return front_matter(module) + " ".join(write(module))


COMMENTS = (
    "// c é\n", "# c: {\n", "/* c */", "/* two\n   lines */", "//\n",
    "// it's\n", '# say "x": y\n', "/* it's */", '/* " */', "/* '\n : */",
)  # fmt: skip


def scattered_source(module: t.Module, chance: random.Random) -> tuple[str, list[str]]:
    """Write a module with blanks, line breaks and comments scattered over it; give the comments too."""
    written, comments = [front_matter(module)], []
    for atom in write(module):
        for part in (atom[:-1], ":") if atom.endswith(":") and chance.random() < 0.3 else (atom,):
            written.append(part)
            written.append(chance.choice((" ", " ", " ", "\n", "\n\n\n", "\t", "\r\n", "  ")))
            if chance.random() < 0.1:
                comment = chance.choice(COMMENTS)
                comments.append(comment.strip())
                written.append(comment)
                written.append(chance.choice((" ", "\n", "\n\n")))
    return "".join(written), comments
