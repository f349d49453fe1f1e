"""Loops, tasks and sweeps as a whole."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..index import Index
from ..tree import (
    AgentLoop,
    EngineeringLoop,
    Expr,
    Handler,
    Literal,
    Measure,
    Name,
    Node,
    Procedure,
    Property,
    ServiceLoop,
    Step,
    System,
    Task,
    Template,
)
from ..types import ANY, Type
from ..units import UNITS
from ..wording import dotted_name
from .actions import Actions, LoopKind
from .declarations import Declarations, parameters_of, space_names, spaces_of
from .environment import Environment, item_type
from .flow import Flow, unread_outputs
from .report import Report
from .walk import nodes

_OBJECTIVES = ("maximize", "minimize")
_SOURCES = frozenset({"cmd", "kernel", "tool", "run"})
_SECONDS = frozenset({"timeout", "max_time", "time_budget"})  # properties that are lengths of time, in seconds
_RESULT = ("result",)  # what the steps of a sweep see once it has measured


@dataclass(frozen=True, slots=True)
class Loops:
    """Checks loops; `events` are the names that some service loop waits for."""

    actions: Actions
    declarations: Declarations
    index: Index
    events: frozenset[str]

    @property
    def report(self) -> Report:
        """Where findings go."""
        return self.actions.report

    def agent(self, loop: AgentLoop | Task, system: System | None) -> None:
        """Check a task or an agent loop."""
        kind: LoopKind = "task" if isinstance(loop, Task) else "agent_loop"
        flow = self._flow(kind, system)
        if not loop.steps:
            self.report.add("K411", loop, f"`{loop.name}` has no steps")
        self._unique_steps(loop.steps, loop.name)
        self.declarations.unique(loop.evaluation, "check")
        flow.steps(loop.steps)
        self._properties(loop.properties, flow.here())
        flow.checks(loop.evaluation, loop.success)
        self._unread(loop.steps, (loop.evaluation, loop.success, loop.properties), flow)

    def service(self, loop: ServiceLoop, system: System) -> None:
        """Check a service loop: each handler by itself."""
        if not loop.handlers:
            self.report.add("K411", loop, f"`{loop.name}` handles no event", hint="write `on EVENT(item) { ... }`")
        seen: dict[str, Handler] = {}
        for handler in loop.handlers:
            if handler.event in seen:
                line = seen[handler.event].span.line
                self.report.add("K107", handler, f"`{loop.name}` handles `{handler.event}` already, at line {line}")
            seen.setdefault(handler.event, handler)
            self._handler(handler, system)
        self._properties(loop.properties, self._flow("service_loop", system).here())

    def _handler(self, handler: Handler, system: System) -> None:
        flow = self._flow("service_loop", system)
        case = self.index.find("case", handler.event, system.name)
        prefix = handler.event.split(".")[0]
        if case is None and any(entry.variant == prefix for entry in self.index.of("case")):
            known = list(self.index.spellings("case"))
            self.report.unknown("K103", handler, f"no case is called `{handler.event}`", handler.event, known)
        for name in handler.parameters:
            single = case is not None and len(handler.parameters) == 1
            flow.sure[name] = item_type(self.index, case) if single else ANY
        for name in {one for one in handler.parameters if handler.parameters.count(one) > 1}:
            self.report.add("K107", handler, f"the parameter `{name}` is there twice")
        flow.later = frozenset()
        flow.body(handler.body)
        self._unread(handler.body, (), flow)

    def procedure(self, procedure: Procedure, system: System) -> None:
        """Check a procedure: it sees its parameters, states and constants."""
        self.declarations.fields(procedure.parameters, system.name, f"`{procedure.name}`")
        self.declarations.not_builtin(procedure.name, procedure)
        flow = self._flow("procedure", system)
        flow.sure.update(self.index.fields(procedure.parameters, system.name))
        flow.body(procedure.body)
        self._unread(procedure.body, (), flow)

    def engineering(self, loop: EngineeringLoop, system: System) -> None:
        """Check a sweep: its spaces, what it measures, and its steps."""
        self.declarations.unique(loop.parameters, f"parameter of `{loop.name}`")
        env = Environment(self.index, "space", system.name, words=True)
        spaces = spaces_of(system)
        for one in loop.parameters:
            self.declarations.values(one.value, one.key, env)
            if one.key in spaces:
                self.declarations.inside(one.value, spaces[one.key], one.key, one)
        flow = self._flow("engineering_loop", system)
        names = parameters_of(loop)
        flow.sure.update(names)
        if loop.measure is not None:
            self._measure(loop, loop.measure, flow.here())
        elif not loop.steps:
            self.report.add(
                "K506",
                loop,
                f"`{loop.name}` measures nothing",
                hint="write `measure { cmd: ... metric: ... objective: maximize }`",
            )
        self._unique_steps(loop.steps, loop.name)
        place = loop.measure.span.start if loop.measure is not None else 0
        flow.steps(tuple(one for one in loop.steps if one.span.start <= place))
        flow.sure.update(dict.fromkeys(_RESULT, ANY))
        flow.steps(tuple(one for one in loop.steps if one.span.start > place))
        self._properties(loop.properties, flow.here())
        self._unread(loop.steps, (loop.measure, loop.properties), flow)
        self._unused_parameters(loop)

    def _measure(self, loop: EngineeringLoop, measure: Measure, env: Environment) -> None:
        self.declarations.unique(measure.properties, "property of `measure`")
        given = {one.key: one for one in measure.properties}
        if not _SOURCES & given.keys() and not loop.steps:
            self.report.add("K506", measure, f"`{loop.name}` does not say what to run", hint="give `measure` a `cmd:`")
        if "metric" not in given:
            self.report.add("K506", measure, f"`{loop.name}` does not say which `metric:` it wants")
        else:
            self._metric(given["metric"], env)
        if "objective" in given:
            self._objective(given["objective"].value)
        for key, one in given.items():
            if key not in ("metric", "objective"):
                self._property(one, env)

    def _metric(self, metric: Property, env: Environment) -> None:
        value = metric.value
        written = value.value if isinstance(value, Literal) else dotted_name(value)
        cases = list(self.index.of("case"))
        if not isinstance(written, str) or not cases:
            if isinstance(value, Template) or not isinstance(written, str):
                self.actions.expressions.infer(value, env)
            return
        known: dict[str, Type] = {}
        for entry in cases:
            found = self.index.type_named(entry.full, entry.system)
            for name, type_ in ((found.fields if found is not None else None) or {}).items():
                spellings = [
                    name,
                    f"{entry.name}.{name}",
                    f"{entry.full}.{name}",
                    f"{entry.variant}.{entry.name}.{name}",
                ]
                for spelling in spellings:
                    if spelling not in known or type_.number:
                        known[spelling] = type_
        if written not in known:
            self.report.unknown("K504", value, f"no case has a field `{written}` to measure", written, known)
        elif not known[written].number and known[written].kind != "any":
            self.report.add("K504", value, f"`{written}` is {known[written]}, and a metric is a number")

    def _objective(self, value: Expr) -> None:
        written = value.name if isinstance(value, Name) else value.value if isinstance(value, Literal) else None
        if written not in _OBJECTIVES:
            self.report.unknown(
                "K505",
                value,
                f"no objective is called `{written}`",
                str(written),
                _OBJECTIVES,
                "it is maximize or minimize",
            )

    def _unused_parameters(self, loop: EngineeringLoop) -> None:
        """Warn of parameters that the command never names: the sweep would measure the same thing again and again."""
        if loop.measure is not None and not any(one.key == "cmd" for one in loop.measure.properties) and not loop.steps:
            return  # kernels and tools are given every parameter
        read = {one.name for one in nodes((loop.measure, loop.steps, loop.properties)) if isinstance(one, Name)}
        for one in loop.parameters:
            if one.key not in read:
                self.report.add(
                    "K503",
                    one,
                    f"the parameter `{one.key}` of `{loop.name}` is never used",
                    hint=f"put {{{{{one.key}}}}} into `cmd:`",
                )

    # Around them ------------------------------------------------------------------------------------------------

    def _flow(self, kind: LoopKind, system: System | None) -> Flow:
        name = system.name if system is not None else ""
        names: dict[str, Type] = {}
        states: dict[str, Type] = {}
        if system is not None:
            names |= space_names(system, chosen=False)
            states = {one.name: self.index.resolved(one.type, name) for one in system.states}
        env = Environment(self.index, "loop", name, {**names, **states}, trace=True)
        return Flow(self.actions, env, kind, states, self.events)

    def _properties(self, properties: Iterable[Property], env: Environment) -> None:
        for one in properties:
            if one.key == "objective":
                self._objective(one.value)
            elif one.key == "metric":
                self._metric(one, env)
            else:
                self._property(one, env)

    def _property(self, one: Property, env: Environment) -> None:
        words = Environment(env.index, "loop", env.system, env.names, trace=True, words=True)
        found = self.actions.expressions.infer(one.value, words)
        if one.key in _SECONDS and found.number and found.unit is not None:
            self.actions.expressions.fit(one.value, found, Type("float", unit=UNITS["s"]), f"`{one.key}`")

    def _unique_steps(self, steps: Sequence[Step], loop: str) -> None:
        self.declarations.unique(steps, f"step of `{loop}`")

    def _unread(self, steps: Sequence[Node], readers: Sequence[object], flow: Flow) -> None:
        for node, name in unread_outputs(steps, readers):
            if name not in flow.states:
                self.report.add(
                    "K115", node, f"nothing reads `{name}`", hint=f"call it `_{name}` to say that on purpose"
                )
