"""The typed tree of a knowledge module: what the parser makes, and all that later stages read.

Nodes are frozen, hold no behaviour, and know where they stand (`span`), which never counts in a comparison: two
trees are equal when they say the same.
"""

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of source: character offsets, and the line and column (both from 1) of its start."""

    start: int
    end: int
    line: int
    column: int


NOWHERE = Span(0, 0, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Anything that stands somewhere in the source."""

    span: Span = field(default=NOWHERE, compare=False, repr=False)


# Expressions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """A constant: null, a boolean, a number with its unit as written (`3 ms`), or a plain string."""

    value: bool | int | float | str | None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Template(Node):
    """A string with `{{expressions}}` in it. Literal text and expressions in turn, never empty."""

    parts: "tuple[str | Expr, ...]"


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A bare name: a variable, a parameter, a constant, a fact, or a word such as `maximize`."""

    name: str


@dataclass(frozen=True, slots=True)
class Field(Node):
    """`base.name`."""

    base: "Expr"
    name: str


@dataclass(frozen=True, slots=True)
class Index(Node):
    """`base[index]`; `{{axiom.0}}` reads as this too."""

    base: "Expr"
    index: "Expr"


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """`-x` or `not x` (op "-" or "not")."""

    op: str
    operand: "Expr"


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """`left op right`; op is one of + - * / % == != < <= > >= and or in "not in" (`&&`, `||` are spelled out)."""

    op: str
    left: "Expr"
    right: "Expr"


@dataclass(frozen=True, slots=True)
class Window(Node):
    """Which items an aggregate looks at: the last so many, or those of the last so many nanoseconds, by group.

    Both `last` and `duration_ns` None: all items so far. `per` names fields of the case.
    """

    last: int | None = None
    duration_ns: int | None = None
    per: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call(Node):
    """`name(args)`: a function, a fact, or an aggregate when a window follows (`avg(t.loss) over last 100`)."""

    name: str
    args: "tuple[Expr, ...]"
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class ListExpr(Node):
    """`[a, b]`."""

    items: "tuple[Expr, ...]"


@dataclass(frozen=True, slots=True)
class MapExpr(Node):
    """`{ key: value, ... }`."""

    items: "tuple[Property, ...]"


@dataclass(frozen=True, slots=True)
class RangeExpr(Node):
    """`range[low, high]`, `range[low, high, step]`, or with `log` after it: a continuous or stepped space."""

    low: "Expr"
    high: "Expr"
    step: "Expr | None" = None
    log: bool = False


Expr: TypeAlias = Literal | Template | Name | Field | Index | Unary | Binary | Call | ListExpr | MapExpr | RangeExpr


@dataclass(frozen=True, slots=True)
class Property(Node):
    """`key: value`, in a map, a call, or a block that takes free keys."""

    key: str
    value: Expr


# Types ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NamedType(Node):
    """int, float, string, boolean, or a declared type; a number may have a unit: `float in ms`."""

    name: str
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class EnumType(Node):
    """`"mem" | "compute"`: one of these literals, all of one kind."""

    values: tuple[str | int | float | bool, ...]


@dataclass(frozen=True, slots=True)
class ListType(Node):
    """`[float]`; or a shape, `[M, N, K]`: as many ints as it has names."""

    item: "TypeExpr"
    sizes: tuple[str, ...] = ()  # the names of a shape


@dataclass(frozen=True, slots=True)
class OptionalType(Node):
    """`float?`: the value may be null or absent."""

    item: "TypeExpr"


TypeExpr: TypeAlias = NamedType | EnumType | ListType | OptionalType


@dataclass(frozen=True, slots=True)
class FieldDecl(Node):
    """`name: type`, of a case, a type or a parameter list."""

    name: str
    type: TypeExpr


# Statements and steps -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Action(Node):
    """`tool.run { cmd: ... }`, `llm.query { ... }`: a named effect with named arguments.

    `emit` is the case of `-> emit TraceItem.X` (or "" for a bare `-> emit`: any declared case), None without it.
    `output` is the variable that takes the result: `output_var: x` in the arguments, or `x = tool.run {...}`.
    """

    name: str
    arguments: tuple[Property, ...]
    output: str | None = None
    emit: str | None = None


@dataclass(frozen=True, slots=True)
class Emit(Node):
    """`emit TraceItem.X { field: value }`, or `emit NAME` of an event. `case` is dotted as written."""

    case: str
    values: tuple[Property, ...] = ()


@dataclass(frozen=True, slots=True)
class Assign(Node):
    """`name = expression`."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class If(Node):
    """`if condition { ... } else { ... }`."""

    condition: Expr
    then: "tuple[Statement, ...]"
    otherwise: "tuple[Statement, ...]" = ()


@dataclass(frozen=True, slots=True)
class For(Node):
    """`for name in expression { ... }`: over a list that is finite by construction."""

    name: str
    items: Expr
    body: "tuple[Statement, ...]"


@dataclass(frozen=True, slots=True)
class Return(Node):
    """`return expression`: in functions and procedures, and to end a handler or a loop early."""

    value: Expr | None = None


Statement: TypeAlias = Action | Emit | Assign | If | For | Return


@dataclass(frozen=True, slots=True)
class Step(Node):
    """`step NAME: action` or `step NAME { statements }`."""

    name: str
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Check(Node):
    """`check NAME: action`, or `check NAME: expression`, in an evaluation."""

    name: str
    body: Action | Expr


# Declarations ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SystemModel(Node):
    """`system_model NAME { axiom: heuristic: prediction: }`, each as often as wanted, in the order written."""

    name: str
    axioms: tuple[Expr, ...] = ()
    heuristics: tuple[Expr, ...] = ()
    predictions: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class Task(Node):
    """`task NAME { step ... evaluation { check ... } success: cond(args) ... }`."""

    name: str
    steps: tuple[Step, ...]
    evaluation: tuple[Check, ...] = ()
    success: tuple[Expr, ...] = ()
    properties: tuple[Property, ...] = ()  # other keys, such as budget


@dataclass(frozen=True, slots=True)
class Space(Node):
    """`design_space { name: [values] | "text" | nested map }` or `tuning_space { name: [values] | range[..] }`."""

    kind: str  # "design" or "tuning"
    entries: tuple[Property, ...]


@dataclass(frozen=True, slots=True)
class TypeDecl(Node):
    """`type NAME matches { field: type, ... }`."""

    name: str
    fields: tuple[FieldDecl, ...]


@dataclass(frozen=True, slots=True)
class StateDecl(Node):
    """`state name: type = value`."""

    name: str
    type: TypeExpr
    default: Expr | None = None


@dataclass(frozen=True, slots=True)
class Constant(Node):
    """`const NAME = expression`, at the top of a system."""

    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Case(Node):
    """`case NAME { field: type, ... }`: one kind of trace item, and so one type of event.

    `case NAME from "health.layer" { ... }` reads an event type that the log has already.
    """

    name: str
    fields: tuple[FieldDecl, ...]
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Variant(Node):
    """`variant TraceItem { case ... }`: a tagged union of cases."""

    name: str
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Fact(Node):
    """`fact name(t: TraceItem.Case) { return EXPR }`: a predicate on each measured item of one case."""

    name: str
    parameter: str
    case: str  # dotted as written
    body: Expr


@dataclass(frozen=True, slots=True)
class RecordedFact(Node):
    """`fact name { description: confidence: source: ... }`: something known, not computed."""

    name: str
    properties: tuple[Property, ...]


@dataclass(frozen=True, slots=True)
class Rule(Node):
    """`rule "..." { when: apply: recommend: effect: parameter: optimize: }`.

    `when` holds the conditions, all of which must hold; one that is a plain string is advice and not executable.
    """

    name: str
    when: tuple[Expr, ...]
    apply: tuple[Expr, ...] = ()
    recommend: tuple[Expr, ...] = ()
    effect: Expr | None = None
    parameters: tuple[Property, ...] = ()  # `parameter P: [..]`
    optimize: Expr | None = None
    properties: tuple[Property, ...] = ()  # any other key


@dataclass(frozen=True, slots=True)
class Hint(Node):
    """`hint "..." { trigger: suggestion: }`."""

    name: str
    trigger: tuple[Expr, ...]
    suggestion: tuple[Expr, ...] = ()
    properties: tuple[Property, ...] = ()


@dataclass(frozen=True, slots=True)
class Invariant(Node):
    """`invariant NAME { assert: constraint: verification: }`."""

    name: str
    asserts: tuple[Expr, ...]
    properties: tuple[Property, ...] = ()


@dataclass(frozen=True, slots=True)
class Domain(Node):
    """`domain NAME { type ... invariant ... rule ... }`."""

    name: str
    types: tuple[TypeDecl, ...] = ()
    invariants: tuple[Invariant, ...] = ()
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Handler(Node):
    """`on EVENT(parameters) { statements }`: what a service loop does with one event."""

    event: str  # dotted: an event type of the log, a case, or a name that is emitted
    parameters: tuple[str, ...]
    body: tuple[Statement, ...]
    declared: tuple[FieldDecl, ...] = ()  # those of the parameters that say their type: `on ask(question: string)`


@dataclass(frozen=True, slots=True)
class AgentLoop(Node):
    """`agent_loop NAME { step ... }`: a strategy, the only loop that may ask a model."""

    name: str
    steps: tuple[Step, ...]
    evaluation: tuple[Check, ...] = ()
    success: tuple[Expr, ...] = ()
    properties: tuple[Property, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceLoop(Node):
    """`service_loop NAME { on EVENT ... }`: event-driven, never a model."""

    name: str
    handlers: tuple[Handler, ...]
    properties: tuple[Property, ...] = ()


@dataclass(frozen=True, slots=True)
class Measure(Node):
    """`measure { cmd: metric: objective: ... }`, or with `kernel:`/`tool:` in place of `cmd:`."""

    properties: tuple[Property, ...]


@dataclass(frozen=True, slots=True)
class EngineeringLoop(Node):
    """`engineering_loop NAME { parameter P: [...] measure { ... } step ... }`: a sweep, never a model."""

    name: str
    parameters: tuple[Property, ...]
    measure: Measure | None = None
    steps: tuple[Step, ...] = ()
    properties: tuple[Property, ...] = ()  # sampler, budget, repeats, warmup, workers, seed, ...


@dataclass(frozen=True, slots=True)
class Artifact(Node):
    """`artifact "FILE" { generator: input: content: ... }`."""

    name: str
    properties: tuple[Property, ...]


@dataclass(frozen=True, slots=True)
class View(Node):
    """`view NAME { sql: "..." }`."""

    name: str
    properties: tuple[Property, ...]


@dataclass(frozen=True, slots=True)
class Function(Node):
    """`function name(a: type, ...): type { return EXPR }`: pure."""

    name: str
    parameters: tuple[FieldDecl, ...]
    returns: TypeExpr | None
    body: Expr


@dataclass(frozen=True, slots=True)
class Procedure(Node):
    """`procedure name(a: type, ...) { statements }`: may act."""

    name: str
    parameters: tuple[FieldDecl, ...]
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Use(Node):
    """`use "other.mk"` (a path beside this file) or `use std.training` (a module that ships with Morphogen)."""

    target: str


@dataclass(frozen=True, slots=True)
class System(Node):
    """`system NAME { ... }`. The sections are kept by kind, in the order written; a section may come in pieces."""

    name: str
    description: str | None = None
    constants: tuple[Constant, ...] = ()
    spaces: tuple[Space, ...] = ()
    types: tuple[TypeDecl, ...] = ()
    states: tuple[StateDecl, ...] = ()
    variants: tuple[Variant, ...] = ()
    facts: tuple[Fact, ...] = ()
    recorded: tuple[RecordedFact, ...] = ()
    rules: tuple[Rule, ...] = ()
    hints: tuple[Hint, ...] = ()
    invariants: tuple[Invariant, ...] = ()
    domains: tuple[Domain, ...] = ()
    views: tuple[View, ...] = ()
    functions: tuple[Function, ...] = ()
    procedures: tuple[Procedure, ...] = ()
    agent_loops: tuple[AgentLoop, ...] = ()
    service_loops: tuple[ServiceLoop, ...] = ()
    engineering_loops: tuple[EngineeringLoop, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    tasks: tuple[Task, ...] = ()
    properties: tuple[Property, ...] = ()  # other keys, such as objective or baseline


@dataclass(frozen=True, slots=True)
class Module(Node):
    """A whole file, of either generation."""

    metadata: tuple[tuple[str, str], ...] = ()  # the YAML front matter, flat, values as text
    uses: tuple[Use, ...] = ()
    models: tuple[SystemModel, ...] = ()
    tasks: tuple[Task, ...] = ()
    systems: tuple[System, ...] = ()
    domains: tuple[Domain, ...] = ()
