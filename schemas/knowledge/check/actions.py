"""One action or emit: the tool exists, its arguments are those it takes, the case has its fields."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal as OneOf

from ..index import Entry, Index
from ..tools import EVERY_ACTION, ParameterSpec, Signature
from ..tree import Action, Emit, Expr, Literal, Name, Procedure, Property
from ..types import ANY, MAP, STRING, Kind, Type
from ..units import PLAIN, UNITS
from ..wording import quoted
from .environment import Environment
from .expressions import Expressions
from .recursion import reaches
from .report import Report

LoopKind = OneOf["task", "agent_loop", "service_loop", "engineering_loop", "procedure"]
NO_MODEL: frozenset[LoopKind] = frozenset({"service_loop", "engineering_loop"})
_WORDS = frozenset({"name", "returns", "schema", "model"})  # arguments whose bare names are names, not variables


@dataclass(frozen=True, slots=True)
class Actions:
    """Checks actions and emits against the table of tools and the declared cases."""

    expressions: Expressions
    index: Index
    tools: Mapping[str, Signature]

    @property
    def report(self) -> Report:
        """Where findings go."""
        return self.expressions.report

    def action(self, action: Action, env: Environment, loop: LoopKind) -> Type:
        """Check one action and return the type of its result."""
        self._no_model(action, env, loop)
        if action.emit is not None:
            self._capture(action, env)
        signature = self.tools.get(action.name)
        if signature is not None:
            return self._tool(action, signature, env)
        procedure = self.index.find("procedure", action.name, env.system)
        if procedure is not None:
            self.report.name(self.index, "procedure", action, "name", procedure)
            return self._procedure(action, procedure, env)
        function = self.index.find("function", action.name, env.system)
        for one in action.arguments:
            self.expressions.infer(one.value, env)
        if function is not None:
            self.report.add("K401", action, f"`{action.name}` is a function; call it as {action.name}(...)")
            return ANY
        what = "tool" if "." in action.name else "tool or procedure"
        known = [*self.tools, *self.index.spellings("procedure")]
        self.report.unknown(
            "K401",
            action,
            f"no {what} is called `{action.name}`",
            action.name,
            known,
            f"known are {', '.join(self.tools)}",
        )
        return ANY

    def _no_model(self, action: Action, env: Environment, loop: LoopKind) -> None:
        if loop not in NO_MODEL:
            return
        if action.name.startswith("llm."):
            self.report.add(
                "K405", action, f"LLM call not allowed in {loop}", hint="only an agent_loop or a task may ask a model"
            )
            return
        procedure = self.index.find("procedure", action.name, env.system)
        if procedure is not None:
            found = reaches(self.index, procedure, lambda name: name.startswith("llm."))
            if found is not None:
                self.report.add("K405", action, f"LLM call not allowed in {loop}: `{action.name}` does `{found}`")

    def _tool(self, action: Action, signature: Signature, env: Environment) -> Type:
        given = {one.key for one in action.arguments}
        for one in action.arguments:
            spec = signature.parameters.get(one.key) or EVERY_ACTION.get(one.key)
            if spec is None:
                if not signature.open:
                    known = signature.accepts()
                    self.report.unknown(
                        "K402",
                        one,
                        f"`{action.name}` takes no argument `{one.key}`",
                        one.key,
                        known,
                        f"it takes {', '.join(signature.parameters)}",
                    )
                self.expressions.infer(one.value, env)
                continue
            self._argument(action, one, spec, env)
        for name, spec in signature.parameters.items():
            if spec.required and name not in given:
                self.report.add("K403", action, f"`{action.name}` needs `{name}:`", hint=spec.doc or None)
        for group in signature.one_of:
            count = sum(name in given for name in group)
            if count != 1:
                self.report.add(
                    "K403" if count == 0 else "K408",
                    action,
                    f"`{action.name}` needs {'exactly ' if count else ''}one of {', '.join(f'`{name}:`' for name in group)}",
                )
        if action.name == "tool.engineering_loop":
            self._engineering(action, env)
        return self._result(action, signature, env)

    def _argument(self, action: Action, one: Property, spec: ParameterSpec, env: Environment) -> None:
        if isinstance(one.value, Name) and one.value.name not in env.names:
            word = one.value.name
            if word in spec.choices or (one.key in _WORDS and word not in env.known()):
                self.report.replaced[id(one.value)] = Literal(word, span=one.value.span)
                return
        found = self.expressions.infer(one.value, env)
        kinds = spec.type.split("|")
        what = f"`{one.key}` of `{action.name}`"
        if found.kind == "null" or "any" in kinds or found.kind == "any":
            return
        fitting: Kind | None = next(
            (kind for kind in ("int", "float", found.kind) if kind in kinds and _fits(found.kind, kind)), None
        )
        if fitting is None:
            self.report.add("K404", one.value, f"{what} is {found}; it must be {' or '.join(kinds)}")
            return
        if found.number and spec.unit is not None:
            wanted = Type("float", unit=UNITS[spec.unit])
            self.expressions.fit(one.value, found, wanted, what, "K404")
        elif found.number and found.unit is not None and not found.unit.dimensionless:
            self.expressions.fit(one.value, found, Type("float", unit=PLAIN), what, "K404")
        if spec.choices and isinstance(one.value, Literal) and one.value.value not in spec.choices:
            self.report.unknown(
                "K404",
                one.value,
                f"{what} is {quoted(one.value.value)}; it must be one of {', '.join(spec.choices)}",
                str(one.value.value),
                spec.choices,
            )

    def _engineering(self, action: Action, env: Environment) -> None:
        name = next((one.value for one in action.arguments if one.key == "name"), None)
        written = name.name if isinstance(name, Name) else name.value if isinstance(name, Literal) else None
        if not isinstance(written, str) or written in env.names:
            return
        loops = [entry for entry in self.index.of("loop") if type(entry.node).__name__ == "EngineeringLoop"]
        names = [spelling for entry in loops for spelling in (entry.name, entry.full)]
        if written not in names and name is not None:
            self.report.unknown("K106", name, f"no engineering_loop is called `{written}`", written, names)

    def _result(self, action: Action, signature: Signature, env: Environment) -> Type:
        returns = next((one.value for one in action.arguments if one.key == "returns"), None)
        if signature.name == "llm.query":
            if returns is None:
                return ANY if any(one.key == "schema" for one in action.arguments) else STRING
            written = returns.name if isinstance(returns, Name) else getattr(returns, "value", None)
            if isinstance(written, str):
                return self._answer(written, returns, env)
            return ANY
        return _kind(signature.returns)

    def _answer(self, written: str, node: Expr, env: Environment) -> Type:
        plain = {
            "int": Type("int"),
            "float": Type("float"),
            "string": STRING,
            "boolean": Type("boolean"),
            "text": STRING,
        }
        if written in plain:
            return plain[written]
        if written in ("list", "map", "any"):
            return _kind(written)
        found = self.index.type_named(written, env.system) or self.index.type_named(
            written.rpartition(".")[2], env.system
        )
        if found is None:
            known = [*plain, *self.index.spellings("type"), *self.index.spellings("case")]
            self.report.unknown("K104", node, f"no type is called `{written}`", written, known)
            return ANY
        return found

    def _procedure(self, action: Action, entry: Entry, env: Environment) -> Type:
        procedure = entry.node
        assert isinstance(procedure, Procedure)
        wanted = self.index.fields(procedure.parameters, entry.system)
        given = set()
        for one in action.arguments:
            found = self.expressions.infer(one.value, env)
            given.add(one.key)
            if one.key in wanted:
                self.expressions.fit(one.value, found, wanted[one.key], f"`{one.key}` of `{action.name}`")
            else:
                self.report.unknown("K402", one, f"`{action.name}` takes no argument `{one.key}`", one.key, wanted)
        for name, type_ in wanted.items():
            if name not in given and not type_.optional:
                self.report.add("K403", action, f"`{action.name}` needs `{name}:`")
        return ANY

    # Emits ------------------------------------------------------------------------------------------------------

    def _capture(self, action: Action, env: Environment) -> None:
        """Check `-> emit Case` behind an action."""
        if action.emit:
            entry = self._case(action.emit, action, env, events=())
            if entry is not None:
                self.report.name(self.index, "case", action, "emit", entry)
        elif not any(True for _ in self.index.of("case")):
            self.report.add(
                "K409",
                action,
                "`-> emit` reads trace items, and no case is declared",
                hint="declare one in a trace_schema",
            )

    def emit(self, emit: Emit, env: Environment, *, captured: bool, events: frozenset[str]) -> None:
        """Check an emit. One without values behind an action (`captured`) takes what the action printed."""
        given = {one.key: self.expressions.infer(one.value, env) for one in emit.values}
        if emit.case in events:
            return
        entry = self._case(emit.case, emit, env, events)
        if entry is None:
            return
        self.report.name(self.index, "case", emit, "case", entry)
        if captured and not emit.values:
            return
        wanted = self.index.type_named(entry.full, entry.system)
        fields = (wanted.fields if wanted is not None else None) or {}
        seen: set[str] = set()
        for one in emit.values:
            if one.key in seen:
                self.report.add("K107", one, f"`{one.key}` is given twice")
            seen.add(one.key)
            if one.key in fields:
                self.expressions.fit(one.value, given[one.key], fields[one.key], f"`{one.key}` of `{entry.name}`")
            elif one.key not in ("origin", "source"):
                self.report.unknown(
                    "K102",
                    one,
                    f"`{entry.full}` has no field `{one.key}`",
                    one.key,
                    fields,
                    f"it has {', '.join(fields)}",
                )
        missing = [name for name, type_ in fields.items() if name not in seen and not type_.optional]
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            self.report.add(
                "K406", emit, f"`{entry.full}` needs {names}", hint="a field that may be unknown is declared with `?`"
            )

    def _case(
        self, written: str, node: Action | Emit, env: Environment, events: tuple[str, ...] | frozenset[str]
    ) -> Entry | None:
        found = self.index.candidates("case", written, env.system)
        if len(found) > 1:
            self.report.add("K108", node, f"`{written}` could be {', '.join(one.full for one in found)}")
        if not found:
            known = [*self.index.spellings("case"), *events]
            self.report.unknown(
                "K103", node, f"no case is called `{written}`", written, known, "declare it in a trace_schema"
            )
        return found[0] if found else None


def _fits(found: Kind, wanted: str) -> bool:
    return found == wanted or (found == "int" and wanted == "float")


def _kind(word: str) -> Type:
    kinds: dict[str, Type] = {
        "string": STRING,
        "int": Type("int"),
        "float": Type("float"),
        "boolean": Type("boolean"),
        "list": Type("list", item=ANY),
        "map": MAP,
    }
    return kinds.get(word, ANY)
