"""The type of every expression, and what is wrong inside of it; units are made to agree on the way."""

from dataclasses import dataclass, replace

from ..index import Entry
from ..logic import COMPARISONS
from ..tree import (
    Binary,
    Call,
    Expr,
    Field,
    Index,
    ListExpr,
    Literal,
    MapExpr,
    Name,
    RangeExpr,
    Template,
    Unary,
)
from ..types import ANY, BOOLEAN, FLOAT, INT, LIST, STRING, Type
from ..units import PLAIN
from ..wording import dotted_name
from .agreement import kind_word, listed
from .calls import Calls
from .environment import TRACE_ITEM, Environment, item_type
from .report import Report

_MODEL_LISTS = {"axiom": "axioms", "heuristic": "heuristics", "prediction": "predictions"}


@dataclass(frozen=True, slots=True)
class Expressions(Calls):
    """Infers types. One for a whole check; it writes what it finds into the report."""

    def infer(self, expr: Expr, env: Environment) -> Type:
        """Return the type of an expression; any where it cannot be told, after saying why."""
        match expr:
            case Literal():
                return self.literal(expr)
            case Template(parts=parts):
                for part in parts:
                    if not isinstance(part, str):
                        self.infer(part, replace(env, words=False))
                return STRING
            case Name():
                return self._name(expr, env)
            case Field():
                return self._field(expr, env)
            case Index():
                return self._index(expr, env)
            case Unary(op=op, operand=operand):
                inner = self.infer(operand, env)
                if op == "-":
                    self.need_number(inner, operand, "`-`")
                    return replace(inner, values=()) if inner.number else FLOAT
                self.need_condition(inner, operand, "`not`")
                return BOOLEAN
            case Binary():
                return self._binary(expr, env)
            case Call():
                return self.call(expr, env)
            case ListExpr(items=items):
                return self._list(items, env)
            case MapExpr(items=properties):
                fields = {one.key: self.infer(one.value, env) for one in properties}
                return Type("map", fields=fields)
            case RangeExpr():
                return self._range(expr, env)

    def condition(self, expr: Expr, env: Environment, where: str) -> None:
        """Infer an expression that must be a condition."""
        self.need_condition(self.infer(expr, env), expr, where)

    def _name(self, expr: Name, env: Environment) -> Type:
        name = expr.name
        if name in env.names:
            return env.names[name]
        if env.item is not None and name == env.item[0]:
            return item_type(env.index, env.item[1])
        constant = env.index.find("constant", name, env.system)
        if constant is not None:
            self.report.name(env.index, "constant", expr, "name", constant)
            return self.constant_type(constant, env)
        if name in _MODEL_LISTS and env.index.models:
            return Type("list", item=STRING)
        if name in env.maybe:
            self.report.add("K114", expr, f"`{name}` may have no value here: not every way to this place gives it one")
            return env.maybe[name]
        fact = self.fact(name, expr, env)
        if fact is not None:
            self.report.name(env.index, "fact", expr, "name", fact)
            if env.place == "fact":
                subject = env.item[0] if env.item is not None else "t"
                self.report.add("K312", expr, f"the fact `{name}` needs its item", hint=f"write {name}({subject})")
            elif not env.trace:
                self.report.add("K312", expr, f"the fact `{name}` cannot be asked here, where there is no trace")
            return BOOLEAN
        if env.words:
            return Type("string", values=(name,))
        if name == "trace":
            if not env.trace:
                self.report.add("K312", expr, "there is no trace here", hint="a fact looks at its own item")
            return ANY
        if env.trace and (case := env.index.find("case", name, env.system)) is not None:
            self.report.name(env.index, "case", expr, "name", case)
            return replace(item_type(env.index, case), optional=True)
        if name in env.later:
            self.report.add("K113", expr, f"`{name}` has no value yet: it gets one further down")
            return ANY
        if env.index.find("recorded", name, env.system) is not None:
            self.report.add(
                "K101",
                expr,
                f"`{name}` is a recorded fact: it is known, not computed",
                hint="a condition needs a predicate fact",
            )
            return ANY
        what = "nothing here is called" if env.place != "rule" else "no fact, parameter or constant is called"
        self.report.unknown("K101", expr, f"{what} `{name}`", name, env.known())
        return ANY

    def constant_type(self, entry: Entry, env: Environment) -> Type:
        """Return the type of a constant, from the expression that it stands for."""
        node = entry.node
        value = getattr(node, "value", None)
        if value is None or env.place == "constant":
            return ANY if value is None else self.quiet(value)
        return Expressions(Report()).infer(value, Environment(env.index, "constant", entry.system))

    def _field(self, expr: Field, env: Environment) -> Type:
        base = expr.base
        if isinstance(base, Name) and base.name == "trace" and "trace" not in env.names and env.item is None:
            if not env.trace:
                self.report.add("K312", expr, "there is no trace here", hint="a function sees only its arguments")
                return ANY
            if expr.name == "latest":
                return item_type(env.index, None)
            if expr.name == "all":
                return Type("list", item=item_type(env.index, None))
            self.report.unknown("K102", expr, f"`trace` has no `{expr.name}`", expr.name, ("latest", "all"))
            return ANY
        dotted = dotted_name(expr)
        if dotted is not None and dotted.split(".")[0] not in env.names:
            constant = env.index.find("constant", dotted, env.system)
            if constant is not None:
                return self.constant_type(constant, env)
            if env.trace and env.index.find("fact", dotted, env.system) is not None:
                return BOOLEAN
            if env.words and isinstance(base, Name) and base.name not in env.known():
                return STRING
        inner = self.infer(base, env)
        return self._member(inner, expr, env)

    def _member(self, base: Type, expr: Field, env: Environment) -> Type:
        if base.kind == "list":
            return Type("list", item=self._member(base.item or ANY, expr, env))
        if base.kind == "any" or (base.kind == "map" and base.fields is None):
            return ANY
        if base.kind != "map" or base.fields is None:
            self.report.add("K201", expr, f"{base} has no fields, so no `{expr.name}`")
            return ANY
        if expr.name in base.fields:
            return base.fields[expr.name]
        owner = {None: "the map", TRACE_ITEM: "no case"}.get(base.name, f"`{base.name}`")
        says = "has" if owner == "no case" else "has no"
        self.report.unknown(
            "K102", expr, f"{owner} {says} field `{expr.name}`", expr.name, base.fields, f"it has {listed(base.fields)}"
        )
        return ANY

    def _index(self, expr: Index, env: Environment) -> Type:
        if isinstance(expr.base, Name) and expr.base.name in _MODEL_LISTS and expr.base.name not in env.names:
            return self._model_entry(expr, expr.base.name, env)
        base = self.infer(expr.base, env)
        place = self.infer(expr.index, env)
        if base.kind == "list":
            if not place.number and place.kind != "any":
                self.report.add("K201", expr.index, f"the place in a list is a number, and this is {place}")
            return base.item or ANY
        if base.kind == "map":
            if isinstance(expr.index, Literal) and isinstance(expr.index.value, str) and base.fields is not None:
                return base.fields.get(expr.index.value, ANY)
            return ANY
        if base.kind != "any":
            self.report.add("K201", expr, f"{base} has no places to look at with [...]")
        return ANY

    def _model_entry(self, expr: Index, kind: str, env: Environment) -> Type:
        entries = [one for model in env.index.models for one in getattr(model, _MODEL_LISTS[kind])]
        if not isinstance(expr.index, Literal) or not isinstance(expr.index.value, int):
            self.report.add("K112", expr, f"`{kind}` wants a number: {kind}.0 is the first")
        elif not 0 <= expr.index.value < len(entries):
            have = f"it has {len(entries)}, counted from 0" if entries else "there is none"
            self.report.add("K112", expr, f"no system model has {kind} {expr.index.value}; {have}")
        return STRING

    def _list(self, items: tuple[Expr, ...], env: Environment) -> Type:
        types = [self.infer(one, env) for one in items]
        if not types:
            return LIST
        first = types[0]
        for one, found in zip(items[1:], types[1:], strict=True):
            if found.number and first.number:
                self.unify(items[0], first, one, found, "the items of a list")
        if all(one.kind == first.kind for one in types):
            values = tuple(value for one in types for value in one.values) if all(one.values for one in types) else ()
            return Type("list", item=replace(first, values=values))
        if all(one.number for one in types):
            return Type("list", item=replace(first, kind="float", values=()))
        return LIST

    def _range(self, expr: RangeExpr, env: Environment) -> Type:
        kinds = []
        for one in (expr.low, expr.high, expr.step):
            if one is not None:
                found = self.infer(one, env)
                self.need_number(found, one, "a range")
                kinds.append(found)
        return Type("list", item=INT if all(one.kind == "int" for one in kinds) else FLOAT)

    def _binary(self, expr: Binary, env: Environment) -> Type:
        left, right = self.infer(expr.left, env), self.infer(expr.right, env)
        if expr.op in ("and", "or"):
            self.need_condition(left, expr.left, f"`{expr.op}`")
            self.need_condition(right, expr.right, f"`{expr.op}`")
            return BOOLEAN
        if expr.op in COMPARISONS:
            self._comparison(expr, left, right)
            return BOOLEAN
        return self._arithmetic(expr, left, right, env)

    def _comparison(self, expr: Binary, left: Type, right: Type) -> None:
        if "null" in (left.kind, right.kind):
            self.report.add(
                "K206", expr, "a comparison with null is always unknown", hint="write is_known(x) or not is_known(x)"
            )
            return
        if expr.op in ("in", "not in"):
            self._membership(expr, left, right)
            return
        if "any" in (left.kind, right.kind):
            return
        if left.number and right.number:
            self.unify(expr.left, left, expr.right, right, f"the two sides of `{expr.op}`")
            self.enum_values(expr, left, right)
            return
        if left.kind != right.kind:
            self.kinds_differ(expr, left, right)
        elif expr.op in ("==", "!="):
            self.enum_values(expr, left, right)
        elif left.kind != "string":
            self.report.add("K201", expr, f"`{expr.op}` orders numbers or strings, and this is {kind_word(left)}")

    def _membership(self, expr: Binary, left: Type, right: Type) -> None:
        if right.kind == "any":
            return
        if right.kind != "list":
            self.report.add("K201", expr.right, f"`{expr.op}` looks into a list, and this is {right}")
            return
        if isinstance(expr.right, ListExpr):
            for one in expr.right.items:
                found = self.quiet(one)
                if found.number and left.number:
                    self.convert(one, found, left, f"an item of `{expr.op}`")
                elif "any" not in (found.kind, left.kind) and found.kind != left.kind:
                    self.kinds_differ(expr, left, found)
                else:
                    self.in_enum(one, found.values, left)
        elif right.item is not None and "any" not in (left.kind, right.item.kind):
            if left.number and right.item.number:
                self.convert(expr.left, left, right.item, f"the left side of `{expr.op}`")
            elif left.kind != right.item.kind:
                self.kinds_differ(expr, left, right.item)

    def _arithmetic(self, expr: Binary, left: Type, right: Type, env: Environment) -> Type:
        if expr.op == "+" and left.kind == right.kind == "string":
            if env.place == "fact":
                self.report.add("K312", expr, "a fact does not join texts")
            return STRING
        for side, found in ((expr.left, left), (expr.right, right)):
            self.need_number(found, side, f"`{expr.op}`")
        if expr.op in ("/", "%") and isinstance(expr.right, Literal) and expr.right.value == 0 and right.number:
            self.report.add("K207", expr.right, "this divides by zero, so it is always unknown")
        if "any" in (left.kind, right.kind) or not (left.number and right.number):
            return Type("float", unit=left.unit if right.kind == "any" and expr.op in "+-" else None)
        if expr.op in ("+", "-", "%"):
            return Type("float", unit=self.unify(expr.left, left, expr.right, right, f"the two sides of `{expr.op}`"))
        if left.unit is None and right.unit is None:
            return FLOAT
        one, other = left.unit or PLAIN, right.unit or PLAIN
        return Type("float", unit=one * other if expr.op == "*" else one / other)
