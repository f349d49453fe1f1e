"""Calls: functions, facts, aggregates over windows and lists, the trace."""

from abc import abstractmethod
from dataclasses import dataclass, replace

from ..aggregates import AGGREGATES, is_aggregate
from ..index import Entry
from ..logic import LOOP_ONLY, SCALAR_FUNCTIONS
from ..tools import CONDITIONS
from ..tree import Call, Expr, Field, Name
from ..types import ANY, BOOLEAN, FLOAT, Type
from ..units import PLAIN
from ..wording import dotted_name
from .agreement import Agreement, listed
from .environment import TRACE_ITEM, Environment, item_type
from .recursion import has_aggregate

_KEEP_UNIT = frozenset({"abs", "floor", "ceil", "round"})
_AGGREGATES_OF_ANYTHING = frozenset({"count", "first", "last"})


@dataclass(frozen=True, slots=True)
class Calls(Agreement):
    """Infers what calls give; arguments are inferred by whoever knows all expressions."""

    @abstractmethod
    def infer(self, expr: Expr, env: Environment) -> Type:
        """Return the type of an expression."""

    def call(self, call: Call, env: Environment) -> Type:
        """Return the type of what a call gives."""
        name = call.name
        if name in ("trace.latest", "trace.all"):
            return self._trace_call(call, env)
        if is_aggregate(call) and (env.item is not None or call.window is not None):
            return self._aggregate(call, env)
        if call.window is not None:
            self.report.add(
                "K302",
                call,
                f"`{name}` is no aggregate, so it has no window",
                hint=f"aggregates are {listed(sorted(AGGREGATES))}",
            )
        if name in SCALAR_FUNCTIONS or name in AGGREGATES:
            return self._scalar(call, env)
        fact = self.fact(name, call, env)
        if fact is not None:
            self.report.name(env.index, "fact", call, "name", fact)
            return self._fact_call(call, fact, env)
        function = env.index.find("function", name, env.system)
        if function is not None:
            self.report.name(env.index, "function", call, "name", function)
            return self._function_call(call, function, env)
        if env.index.find("procedure", name, env.system) is not None:
            if env.place != "loop":
                self.report.add("K410", call, f"`{name}` is a procedure and may act; only a function can stand here")
            for one in call.args:
                self.infer(one, env)
            return ANY
        if env.conditions and name in CONDITIONS:
            return self._condition_call(call, env)
        for one in call.args:
            self.infer(one, env)
        if name in CONDITIONS:
            self.report.add("K105", call, f"`{name}` can only be asked in `success` and `evaluation`")
            return ANY
        known = [*SCALAR_FUNCTIONS, *AGGREGATES, *env.index.spellings("fact"), *env.index.spellings("function")]
        if env.conditions:
            known += CONDITIONS
        self.report.unknown("K105", call, f"no function or fact is called `{name}`", name, known)
        return ANY

    def _trace_call(self, call: Call, env: Environment) -> Type:
        if not env.trace:
            self.report.add("K312", call, "there is no trace here", hint="a fact looks at its own item")
            return ANY
        item = item_type(env.index, None)
        if len(call.args) > 1:
            self.report.add("K205", call, f"`{call.name}` takes one case, and here are {len(call.args)}")
        if call.args:
            written = dotted_name(call.args[0])
            if written is None:
                self.report.add("K103", call.args[0], f"`{call.name}` takes the name of a case")
            else:
                entry = self.case(written, call.args[0], env)
                item = item_type(env.index, entry) if entry is not None else ANY
                if entry is not None and env.index.shared("case", written):
                    self.report.replaced[id(call.args[0])] = Name(entry.full, span=call.args[0].span)
        if call.name == "trace.all":
            return Type("list", item=item)
        return replace(item, optional=True)

    def _aggregate(self, call: Call, env: Environment) -> Type:
        name, window = call.name, call.window
        if env.item is None:
            self.report.add(
                "K302",
                call,
                "a window goes over the items of a fact's case; there is none here",
                hint="move it into a fact",
            )
            return ANY
        if env.in_aggregate:
            self.report.add(
                "K301", call, f"`{name}` stands inside another aggregate", hint="make two facts, or one window"
            )
        if window is not None:
            fields = item_type(env.index, env.item[1]).fields or {}
            for grouped in window.per:
                if grouped not in fields:
                    self.report.unknown(
                        "K303", call, f"`{env.item[1].full}` has no field `{grouped}` to group by", grouped, fields
                    )
        if not call.args:
            if name != "count":
                self.report.add(
                    "K205",
                    call,
                    f"`{name}` needs an expression on the item",
                    hint=f"such as {name}({env.item[0]}.field)",
                )
            return Type("int", unit=PLAIN)
        if len(call.args) > 1:
            self.report.add("K205", call, f"`{name}` over a window takes one expression, and here are {len(call.args)}")
        found = self.infer(call.args[0], replace(env, in_aggregate=True))
        for extra in call.args[1:]:
            self.infer(extra, replace(env, in_aggregate=True))
        if name == "count":
            if found.kind == "boolean" and not isinstance(call.args[0], Field):
                self.report.add(
                    "K313", call, "this counts the items where the condition is known, whether true or false",
                    hint="put the condition in a case's field, or count() all items",
                )  # fmt: skip
            return Type("int", unit=PLAIN)
        if name not in _AGGREGATES_OF_ANYTHING:
            self.need_number(found, call.args[0], f"`{name}`")
            return Type("float", unit=found.unit, optional=True)
        return replace(found, optional=True)

    def _scalar(self, call: Call, env: Environment) -> Type:
        name = call.name
        types = [self.infer(one, env) for one in call.args]
        if name in AGGREGATES and len(types) == 1 and (name not in SCALAR_FUNCTIONS or types[0].kind == "list"):
            return self._over_list(call, types[0])
        if name not in SCALAR_FUNCTIONS:
            self.report.add(
                "K205", call, f"`{name}` outside of a fact takes one list, and here are {len(types)} arguments"
            )
            return FLOAT
        least, most = SCALAR_FUNCTIONS[name]
        if len(types) < least or (most is not None and len(types) > most):
            wanted = str(least) if least == most else f"at least {least}"
            self.report.add(
                "K205",
                call,
                f"`{name}` takes {wanted} argument{'s' if wanted != '1' else ''}, and here are {len(types)}",
            )
            return ANY
        if name in LOOP_ONLY and env.place == "fact":
            self.report.add("K312", call, f"a fact reads typed fields, so it has no use for `{name}`")
        if name == "is_known":
            return BOOLEAN
        if name == "number":
            return Type("float", optional=True)
        if name == "len":
            if types[0].kind not in ("string", "list", "any"):
                self.report.add("K201", call.args[0], f"`len` measures a string or a list, and this is {types[0]}")
            return Type("int", unit=PLAIN)
        for one, found in zip(call.args, types, strict=True):
            self.need_number(found, one, f"`{name}`")
        if not all(one.number for one in types):
            return FLOAT
        if name in _KEEP_UNIT:
            return Type("float", unit=types[0].unit)
        if name in ("min", "max", "clamp"):
            return Type("float", unit=self.unify_all(call, types))
        return FLOAT

    def _over_list(self, call: Call, found: Type) -> Type:
        if found.kind not in ("list", "any"):
            self.report.add(
                "K302", call, f"`{call.name}` needs a list or a fact's window, and this is {found}",
                hint="such as trace.all(Case).field, or move it into a fact",
            )  # fmt: skip
            return ANY
        if call.name == "count":
            return Type("int", unit=PLAIN)
        item = found.item or ANY
        if call.name not in _AGGREGATES_OF_ANYTHING:
            self.need_number(item, call.args[0], f"`{call.name}`")
            return Type("float", unit=item.unit, optional=True)
        return replace(item, optional=True)

    def fact(self, name: str, node: Expr, env: Environment) -> Entry | None:
        """Return the fact of this spelling, saying so where it could be several."""
        found = env.index.candidates("fact", name, env.system)
        if len(found) > 1:
            self.ambiguous(name, node, found)
        return found[0] if found else None

    def _fact_call(self, call: Call, fact: Entry, env: Environment) -> Type:
        if env.place == "function":
            self.report.add("K312", call, f"a function is pure and cannot ask the fact `{call.name}`")
        if len(call.args) != 1:
            self.report.add("K205", call, f"the fact `{call.name}` takes one item, and here are {len(call.args)}")
            return BOOLEAN
        argument = call.args[0]
        if env.place == "fact" and not (isinstance(argument, Name) and env.item and argument.name == env.item[0]):
            subject = env.item[0] if env.item else "t"
            self.report.add(
                "K312",
                argument,
                f"inside a fact, `{call.name}` is asked of the same item",
                hint=f"write {call.name}({subject})",
            )
            return BOOLEAN
        if env.in_aggregate and has_aggregate(env.index, fact):
            self.report.add(
                "K301",
                call,
                f"`{call.name}` has an aggregate and is asked inside another",
                hint="a window holds readings",
            )
        found = self.infer(argument, env)
        wanted = env.index.find("case", getattr(fact.node, "case", ""), fact.system)
        if wanted is None or found.kind == "any" or found.name == TRACE_ITEM:
            return BOOLEAN
        if found.kind != "map":
            self.report.add(
                "K201", argument, f"the fact `{call.name}` looks at an item of `{wanted.full}`, and this is {found}"
            )
        elif found.name is not None and found.name != wanted.full:
            self.report.add(
                "K201", argument, f"the fact `{call.name}` looks at `{wanted.full}`, and this is `{found.name}`"
            )
        return BOOLEAN

    def _function_call(self, call: Call, function: Entry, env: Environment) -> Type:
        parameters = getattr(function.node, "parameters", ())
        if len(parameters) != len(call.args):
            self.report.add(
                "K205", call, f"`{call.name}` takes {len(parameters)} arguments, and here are {len(call.args)}"
            )
        for parameter, argument in zip(parameters, call.args, strict=False):
            wanted = env.index.resolved(parameter.type, function.system)
            self.fit(argument, self.infer(argument, env), wanted, f"`{parameter.name}` of `{call.name}`")
        for argument in call.args[len(parameters) :]:
            self.infer(argument, env)
        returns = getattr(function.node, "returns", None)
        return ANY if returns is None else env.index.resolved(returns, function.system)

    def _condition_call(self, call: Call, env: Environment) -> Type:
        condition = CONDITIONS[call.name]
        if len(call.args) != len(condition.arguments):
            self.report.add(
                "K205", call, f"`{call.name}` takes {len(condition.arguments)} arguments, and here are {len(call.args)}"
            )
        for argument, wanted in zip(call.args, condition.arguments, strict=False):
            found = self.infer(argument, env)
            if found.kind not in (wanted, "any"):
                self.report.add("K201", argument, f"an argument of `{call.name}` is {found}; it must be {wanted}")
        return BOOLEAN if condition.returns == "boolean" else ANY

    def case(self, written: str, node: Expr, env: Environment) -> Entry | None:
        """Return the case of this spelling, or say that there is none."""
        found = env.index.candidates("case", written, env.system)
        if len(found) > 1:
            self.ambiguous(written, node, found)
        if not found:
            known = list(env.index.spellings("case"))
            self.report.unknown("K103", node, f"no case is called `{written}`", written, known, _no_cases(known))
        return found[0] if found else None

    def ambiguous(self, name: str, node: Expr, found: list[Entry]) -> None:
        """Say that a name means several things."""
        self.report.add(
            "K108", node, f"`{name}` could be {listed([one.full for one in found])}", hint="write it with its system"
        )


def _no_cases(known: list[str]) -> str:
    return f"declared are {listed(known)}" if known else "declare it in a trace_schema"
