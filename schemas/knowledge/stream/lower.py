"""From a checked fact to a condition: names, constants, functions and other facts are put in where they are used."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from ..errors import KnowledgeError
from ..evaluate import Scope
from ..logic import SCALAR_FUNCTIONS, Value, is_list, known, negative
from ..tree import Binary, Call, Expr, Fact, Field, ListExpr, Literal, Name, Unary, Window
from ..types import Type
from .plan import Column, Condition, Const, Frame, Kind, Node, Op, Over, walk

if TYPE_CHECKING:
    from ..program import Program

_DEEPEST = 200  # nodes above one another; SQL and the evaluation of arrays go down the tree by recursion
_WIDEST = 20_000  # nodes in all: facts that call facts twice grow like powers of two
_AGGREGATES = frozenset(
    {"count", "sum", "avg", "min", "max", "p50", "p90", "p95", "p99", "std", "first", "last", "delta", "slope"}
)
_KINDS: Mapping[str, Kind] = {
    "int": "int",
    "float": "number",
    "string": "text",
    "boolean": "flag",
    "list": "list",
    "null": "nothing",
}
_ORDERED = ("<", "<=", ">", ">=")
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_LEAST_INT, _MOST_INT = -(2**63), 2**63 - 1


class _Item:
    """Stands for the parameter of a fact."""


_ITEM = _Item()
_Bound: TypeAlias = "Node | _Item | tuple[Node, ...]"


class NotExecutable(KnowledgeError):
    """A condition that cannot run over a trace: what it says has no value for a single item."""

    def __init__(self, message: str) -> None:
        super().__init__(())
        self.args = (message,)


def condition(program: "Program", name: str) -> Condition:
    """Return a fact of a program, by its full name. Raises NotExecutable with the reason where it cannot run."""
    info = program.facts[name]
    case = program.cases[info.case]
    scope = program.scope(system=info.system)
    return lower(info.fact, case.fields, scope, name=name, case=info.case)


def lower(fact: Fact, fields: Mapping[str, Type], scope: Scope, *, name: str = "", case: str = "") -> Condition:
    """Return a fact as a condition on items with these fields; `scope` has constants, functions and other facts."""
    lowering = _Lowering(fields, scope)
    body = lowering.node(fact.body, {fact.parameter: _ITEM}, 0)
    where = name or fact.name
    return Condition(where, case or fact.case, _as_flag(body, where), _key(body))


def lower_expression(expr: Expr, fields: Mapping[str, Type], scope: Scope, parameter: str) -> Node:
    """Return any expression on an item that is called `parameter`."""
    return _Lowering(fields, scope).node(expr, {parameter: _ITEM}, 0)


def combined(name: str, case: str, bodies: Iterable[Node]) -> Condition:
    """Return the condition that all these bodies, which look at items of one case, are true."""
    parts = tuple(bodies)
    body = parts[0] if len(parts) == 1 else Op("and", parts, "flag")
    return Condition(name, case, body, _key(body))


class _Lowering:
    def __init__(self, fields: Mapping[str, Type], scope: Scope) -> None:
        self._fields = fields
        self._scope = scope
        self._nodes = 0
        self._window: Window | None = None

    def node(self, expr: Expr, env: Mapping[str, _Bound], depth: int) -> Node:
        bound = self._bound(expr, env, depth)
        if isinstance(bound, _Item):
            raise NotExecutable("an item stands where a value is needed: name one of its fields")
        if isinstance(bound, tuple):
            raise NotExecutable("a list stands where a single value is needed; lists are for `in`")
        return bound

    def _bound(self, expr: Expr, env: Mapping[str, _Bound], depth: int) -> _Bound:
        self._nodes += 1
        if depth > _DEEPEST or self._nodes > _WIDEST:
            limit = f"{_DEEPEST} levels" if depth > _DEEPEST else f"{_WIDEST} parts"
            raise NotExecutable(f"the expression has more than {limit}: split it into facts that stand on fields")
        below = depth + 1
        match expr:
            case Literal(value=value):
                return _const(value)
            case Name(name=name):
                return self._named(name, env)
            case Field():
                return self._field(expr, env, below)
            case Unary(op=op, operand=operand):
                inner = self.node(operand, env, below)
                return Op("not", (_as_flag(inner),), "flag") if op == "not" else _negative(inner)
            case Binary():
                return self._binary(expr, env, below)
            case Call():
                return self._call(expr, env, below)
            case ListExpr(items=items):
                return tuple(self.node(one, env, below) for one in items)
            case _:
                raise NotExecutable(f"a {type(expr).__name__} has no value for a single item of a trace")

    def _named(self, name: str, env: Mapping[str, _Bound]) -> _Bound:
        if name in env:
            return env[name]
        if name in self._scope.constants:
            return _constant(self._scope.constants[name])
        raise NotExecutable(f"`{name}` has no value for a single item of a trace")

    def _field(self, expr: Field, env: Mapping[str, _Bound], depth: int) -> _Bound:
        dotted = _dotted(expr)
        if dotted is not None and dotted in self._scope.constants and dotted.split(".")[0] not in env:
            return _constant(self._scope.constants[dotted])
        base = self._bound(expr.base, env, depth)
        if not isinstance(base, _Item):
            raise NotExecutable(f"`.{expr.name}` is asked of what is no item of the trace")
        found = self._fields.get(expr.name)
        if found is None:
            return Const(None, "nothing")
        kind = _KINDS.get(found.kind)
        if kind is None:
            raise NotExecutable(f"field `{expr.name}` is {found}, which no condition can compare")
        return Column(expr.name, kind)

    def _binary(self, expr: Binary, env: Mapping[str, _Bound], depth: int) -> Node:
        op = expr.op
        if op in ("and", "or"):
            parts = [_as_flag(self.node(one, env, depth)) for one in _chain(expr, op)]
            return Op(op, tuple(parts), "flag")
        if op in ("in", "not in"):
            return self._membership(expr, env, depth)
        left, right = self.node(expr.left, env, depth), self.node(expr.right, env, depth)
        if op in ("==", "!=", *_ORDERED):
            return _comparison(op, left, right)
        if op == "+" and left.kind == "text" and right.kind == "text":
            return Op("concat", (left, right), "text")
        if not (_numeric(left) and _numeric(right)):
            return Const(None, "nothing")
        return Op(op, (left, right), "number")

    def _membership(self, expr: Binary, env: Mapping[str, _Bound], depth: int) -> Node:
        value = self.node(expr.left, env, depth)
        items = self._bound(expr.right, env, depth)
        if value.kind == "list":
            raise NotExecutable("a list stands before `in`, which asks for a single value")
        if isinstance(items, Column) and items.kind == "list":
            found: Node = Const(None, "flag") if value.kind == "nothing" else Op("within", (value, items), "flag")
        elif isinstance(items, tuple):
            found = Op("in", (value, *(one for one in items if not _beyond(value, one))), "flag")
        else:
            raise NotExecutable("`in` needs a list after it, such as [1, 2, 3]")
        return Op("not", (found,), "flag") if expr.op == "not in" else found

    def _call(self, call: Call, env: Mapping[str, _Bound], depth: int) -> Node:
        name = call.name
        item_wide = any(isinstance(bound, _Item) for bound in env.values())
        if name in _AGGREGATES and (call.window is not None or name not in ("min", "max") or len(call.args) == 1):
            if item_wide:
                return self._aggregate(call, env, depth)
            raise NotExecutable(f"`{name}` over a window stands in a function, which sees no trace")
        if name in SCALAR_FUNCTIONS:
            return self._scalar(call, env, depth)
        if name in self._scope.facts:
            fact = self._scope.facts[name]
            subject = self._bound(call.args[0], env, depth) if call.args else None
            if not isinstance(subject, _Item):
                raise NotExecutable(f"fact `{name}` is asked of what is no item of the trace")
            return _as_flag(self.node(fact.body, {fact.parameter: _ITEM}, depth))
        if name in self._scope.functions:
            function = self._scope.functions[name]
            given = [self._bound(one, env, depth) for one in call.args]
            missing = [Const(None, "nothing")] * max(0, len(function.parameters) - len(given))
            names = [one.name for one in function.parameters]
            return self.node(function.body, dict(zip(names, [*given, *missing], strict=False)), depth)
        raise NotExecutable(f"`{name}(...)` has no value for a single item of a trace")

    def _aggregate(self, call: Call, env: Mapping[str, _Bound], depth: int) -> Node:
        window = call.window or Window()
        frame = Frame(window.last, None if window.last is not None else window.duration_ns, window.per)
        if missing := [name for name in window.per if name not in self._fields]:
            raise NotExecutable(f"`per {missing[0]}` names no field of the case")
        if listed := [name for name in window.per if _KINDS.get(self._fields[name].kind, "list") == "list"]:
            raise NotExecutable(f"`per {listed[0]}` groups by {self._fields[listed[0]]}, which is no single value")
        if not call.args:
            return Over("count", None, frame, "int")
        arg = self.node(call.args[0], env, depth)
        if any(isinstance(one, Over) for one in walk(arg)):
            raise NotExecutable(f"`{call.name}` goes over another aggregate: make that one a field of the case")
        if call.name == "count":
            return Over("count", arg, frame, "int")
        if call.name in ("first", "last"):
            return Over(call.name, arg, frame, arg.kind)
        return Over(call.name, arg, frame, "number") if _numeric(arg) else Const(None, "nothing")

    def _scalar(self, call: Call, env: Mapping[str, _Bound], depth: int) -> Node:
        args = tuple(self.node(one, env, depth) for one in call.args)
        least, most = SCALAR_FUNCTIONS[call.name]
        if len(args) < least or (most is not None and len(args) > most):
            return Const(None, "nothing")
        if call.name == "is_known":
            return Op("is_known", args, "flag")
        if call.name == "len":
            return Op("len", args, "int") if args[0].kind in ("text", "list") else Const(None, "nothing")
        if call.name == "number":
            raise NotExecutable("`number(...)` reads what programs print; fields of a case have their types")
        return Op(call.name, args, "number") if all(map(_numeric, args)) else Const(None, "nothing")


def _constant(value: Value) -> _Bound:
    value = known(value)
    if is_list(value):
        return tuple(_const(one) for one in value)
    return _const(value)


def _const(value: Value) -> Const:
    value = known(value)
    if value is None:
        return Const(None, "nothing")
    if isinstance(value, bool):
        return Const(value, "flag")
    if isinstance(value, int):
        return Const(value, "int")
    if isinstance(value, float):
        return Const(value, "number")
    if isinstance(value, str):
        return Const(value, "text")
    raise NotExecutable(f"a constant that is a {type(value).__name__} cannot be compared")


def _numeric(node: Node) -> bool:
    return node.kind in ("number", "int")


def _negative(node: Node) -> Node:
    if isinstance(node, Const) and _numeric(node):
        return _const(negative(node.value))
    return Op("neg", (node,), node.kind) if _numeric(node) else Const(None, "nothing")


def _comparison(op: str, left: Node, right: Node) -> Node:
    if not ((_numeric(left) and _numeric(right)) or left.kind == right.kind) or "nothing" in (left.kind, right.kind):
        return Const(None, "flag")
    if left.kind == "list" or (left.kind == "flag" and op in _ORDERED):
        if op in _ORDERED:
            return Const(None, "flag")
        if left.kind == "list":
            raise NotExecutable("whole lists are compared; compare their lengths, or make the value a field")
    return _within_64_bits(op, left, right)


def _within_64_bits(op: str, left: Node, right: Node) -> Node:
    """Return a comparison; one of a whole number with a constant that none can be, as one with the last that one can."""
    if _beyond(right, left):
        return _within_64_bits(_MIRRORED.get(op, op), right, left)
    side = _beyond(left, right)
    if side > 0:
        return Op("<=" if op in ("<", "<=", "!=") else ">", (left, Const(_MOST_INT, "int")), "flag")
    if side < 0:
        return Op(">=" if op in (">", ">=", "!=") else "<", (left, Const(_LEAST_INT, "int")), "flag")
    return Op(op, (left, right), "flag")


def _beyond(value: Node, const: Node) -> int:
    """Return 1 or -1 where a value is a whole number of an item and the other a constant above or below 64 bits, else 0."""
    if not isinstance(const, Const) or not isinstance(const.value, int) or isinstance(value, Const):
        return 0
    if value.kind != "int" or const.kind != "int" or _LEAST_INT <= const.value <= _MOST_INT:
        return 0
    return 1 if const.value > 0 else -1


def _as_flag(node: Node, where: str = "") -> Node:
    if node.kind == "flag":
        return node
    if node.kind == "nothing":
        return Const(None, "flag")
    name = f"fact `{where}`" if where else "a condition"
    raise NotExecutable(f"{name} is a {node.kind}, where it must be true or false: compare it with something")


def _key(body: Node) -> tuple[str, ...]:
    """Return the fields that tell subjects apart: all that its frames group by, in the order of their first use."""
    names: dict[str, None] = {}
    for node in walk(body):
        if isinstance(node, Over):
            names.update(dict.fromkeys(node.frame.per))
    return tuple(names)


def _chain(expr: Binary, op: str) -> list[Expr]:
    """Return the parts of `a and b and c`, however it leans."""
    parts: list[Expr] = []
    left: list[Expr] = [expr]
    while left:
        here = left.pop()
        if isinstance(here, Binary) and here.op == op:
            left += [here.right, here.left]
        else:
            parts.append(here)
    return parts


def _dotted(expr: Expr) -> str | None:
    names: list[str] = []
    while isinstance(expr, Field):
        names.append(expr.name)
        expr = expr.base
    return ".".join([expr.name, *reversed(names)]) if isinstance(expr, Name) else None
