"""One action of a program, carried out so that its effect happens once.

Its start is in the log before it acts, with the arguments, the plan of the tool and the idempotency key. Its end travels with
the next start. Where the log holds a start and no end, the process was killed in between, and the action's own policy
says what to do: do it again, look whether it happened, or ask.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from morphogen.schemas import EncodeError, Event, LoopSuspended, StepFinished, StepStarted, encode, plain
from morphogen.schemas.knowledge.aggregates import Item
from morphogen.schemas.knowledge.errors import EvaluateError
from morphogen.schemas.knowledge.evaluate import Scope, evaluate
from morphogen.schemas.knowledge.tree import Action, Expr, Name
from morphogen.schemas.knowledge.wording import source as written

from . import stored
from .context import Place
from .errors import EmitFailed, LoopError, StepFailed, ToolFailed, ToolRefused, Unserved, one_line
from .items import trace_lines
from .lanes import arguments_sha256
from .live import Live
from .state import Outcome
from .tools.toolbox import Tool, ToolCall, ToolResult, act, plan_of

if TYPE_CHECKING:
    from .asking import Asking

_CONTROL = ("on_interrupt", "check", "on_failure", "retries")
_POLICY = {"pure": "retry", "read": "retry", "write": "retry", "external": "ask"}
QUERY = "llm.query"


class Suspended(LoopError):
    """The loop waits for an answer; the run goes on when there is one."""


class Actions:
    """Carry out actions of one run."""

    def __init__(self, live: Live, asking: "Asking") -> None:
        self._live = live
        self._asking = asking
        self._variable: str | None = None

    def perform(self, action: Action, path: str, step: str, scope: Scope, variable: str | None = None) -> Any:
        """Return the action's result, from the log where it has one already.

        `variable` is where the state keeps the result. Raises StepFailed where it failed and that ends the loop,
        Suspended where it waits.
        """
        self._variable = variable
        state = self._live.journal.state
        done = state.outcomes.get(path)
        if done is not None:
            return self._known(done, action, scope)
        pending = state.pending.get(path)
        self._live.check()
        try:
            return self._begin(action, path, step, scope, pending)
        finally:
            self._live.take_emitted()

    def _known(self, done: Outcome, action: Action, scope: Scope) -> Any:
        if not done.ok and not self._goes_on(action, scope):
            raise StepFailed(done.error or "the step failed")
        return stored.get(done.output, self._live.context.bus)

    def _begin(self, action: Action, path: str, step: str, scope: Scope, pending: StepStarted | None) -> Any:
        control = {one.key: one.value for one in action.arguments if one.key in _CONTROL}
        number = pending.number if pending is not None else self._live.journal.state.steps + 1
        key = self._live.key(path) if pending is None else pending.key
        self._live.place = Place(path, number, key)
        began = time.monotonic_ns()
        try:
            arguments = self._arguments(action, scope) if pending is None else self._recorded(pending, action, scope)
        except (EvaluateError, ToolRefused) as error:
            if not self._live.context.live:
                return self._unknown(action, path, step, number, key, str(error))
            self._live.journal.add(StepStarted(path=path, step=step, number=number, action=action.name, key=key))
            return self._failed(action, path, scope, ToolRefused(str(error)), began)
        if action.name == QUERY:
            return self._ask(action, path, step, number, key, arguments, scope, pending)
        try:
            tool, call = self._live.context.tools.prepare(action.name, arguments, self._live.context, key=key)
            effect = tool.effect(call.arguments)
            retries = self._retries(control.get("retries"), scope)
            bus = self._live.context.bus
            begun = None if pending is None else stored.get(pending.plan, bus)
            plan = plan_of(tool, call) if begun is None else begun
            kept = stored.put(plain(plan), bus)
        except StepFailed as error:
            self._live.journal.add(
                StepStarted(
                    path=path, step=step, number=number, action=action.name, key=key, arguments=shown(arguments)
                )
            )
            return self._failed(action, path, scope, error, began)
        policy = self._policy(action, control, effect)
        attempt = 1
        if pending is not None:
            attempt = pending.attempt + 1
            try:
                resolved = self._resolve(pending, policy, control, scope)
            except (EvaluateError, StepFailed) as error:
                return self._failed(action, path, scope, ToolRefused(f"check: {error}"), began)
            if resolved is not None:
                return self._resolved(action, path, scope, resolved, began)
        for left in range(retries, -1, -1):
            self._live.journal.commit(
                StepStarted(
                    path=path,
                    step=step,
                    number=number,
                    action=action.name,
                    arguments=shown(arguments),
                    arguments_sha256=arguments_sha256(arguments),
                    key=key,
                    effect=effect,
                    policy=policy,
                    attempt=attempt,
                    plan=kept,
                )
            )
            call = ToolCall(arguments=call.arguments, key=key, context=self._live.context, plan=plan, again=attempt > 1)
            began = time.monotonic_ns()
            try:
                return self._act(action, tool, call, path, scope, began)
            except StepFailed as error:
                if not left or not isinstance(error, ToolFailed):
                    if isinstance(error, Unserved):
                        self._stop_unserved(error, action, scope)
                    return self._failed(action, path, scope, error, began)
                self._live.take_emitted()
                self._live.journal.add(self._end(path, False, None, began, error=one_line(error)))
            attempt += 1
        raise AssertionError("a loop over attempts always returns")

    def _act(self, action: Action, tool: Tool, call: ToolCall, path: str, scope: Scope, began: int) -> Any:
        result = act(tool, call)
        emitted = self._live.take_emitted()
        if action.emit is not None and not result.planned:
            emitted.extend(self._captured(action.emit, result, path))
        try:
            return self._finish(action, path, result, emitted, began)
        except EncodeError as error:
            raise ToolFailed(f"{action.name}: its result cannot be recorded: {one_line(error)}") from error

    def _finish(self, action: Action, path: str, result: ToolResult, emitted: list[Event], began: int) -> Any:
        output = None if result.planned else plain(result.output)
        resources = {name: value for name, value in result.resources.items() if value is not None}
        if result.blobs:
            resources["blobs"] = dict(result.blobs)
        end = StepFinished(
            path=path,
            ok=True,
            output=stored.put(plain(result.plan) if result.planned else output, self._live.context.bus),
            variable=self._variable,
            planned=result.planned,
            duration_ns=result.duration_ns or time.monotonic_ns() - began,
            resources=resources,
        )
        # The end comes last: items that do not fit into its frame are never lost, and on a retry those that are there
        # already are not recorded again.
        there = self._live.journal.state.recorded.get(f"{path}->", 0)
        try:
            self._live.settle(path, emitted[there:], kind="emit")
        finally:
            self._live.journal.add(end)
        return output

    def _failed(
        self, action: Action, path: str, scope: Scope, error: StepFailed, began: int, *, resolved: str | None = None
    ) -> Any:
        """Record a failure; return what there is where the program goes on after it."""
        result = getattr(error, "output", None)
        output, resources = None, {}
        if isinstance(result, ToolResult):
            output, resources = plain(result.output), plain(result.resources)
        kept = stored.put(output, self._live.context.bus)
        end = self._end(path, False, kept, began, error=one_line(error), resources=resources, resolved=resolved)
        self._live.journal.add(end)
        if not self._goes_on(action, scope):
            raise error
        return output

    def _stop_unserved(self, error: Unserved, action: Action, scope: Scope) -> None:
        """Raise LoopError where the run can be gone on with once somebody serves what a step asks for.

        What has to be over by itself fails instead: the handling of an event, and the pursuit of a goal.
        """
        over = self._live.handling is not None or self._live.journal.state.traced is not None
        if not over and not self._goes_on(action, scope):
            raise LoopError(f"{error}, then `morphogen loop resume {self._live.journal.run}`") from error

    def _resolved(self, action: Action, path: str, scope: Scope, how: tuple[str, Any], began: int) -> Any:
        resolved, output = how
        if resolved == "failed":
            why = StepFailed(f"step {path}: it was interrupted, and the answer was to give it up")
            return self._failed(action, path, scope, why, began, resolved="answer")
        self._live.journal.add(
            self._end(path, True, stored.put(output, self._live.context.bus), began, resolved=resolved)
        )
        return output

    def _end(
        self, path: str, ok: bool, output: Any, began: int, *, error: str | None = None,
        resources: Mapping[str, Any] | None = None, resolved: str | None = None,
    ) -> StepFinished:  # fmt: skip
        return StepFinished(
            path=path, ok=ok, output=output, variable=self._variable, error=error, duration_ns=time.monotonic_ns() - began,
            resources=dict(resources or {}), resolved=resolved,
        )  # fmt: skip

    def _unknown(self, action: Action, path: str, step: str, number: int, key: str, why: str) -> Any:
        """Record the plan of a step whose arguments only a real run can know."""
        wording = {one.key: written(one.value) for one in action.arguments if one.key not in _CONTROL}
        self._live.journal.commit(
            StepStarted(path=path, step=step, number=number, action=action.name, arguments=shown(wording), key=key)
        )
        self._live.journal.add(
            StepFinished(path=path, ok=True, planned=True, variable=self._variable, output={"depends_on": why})
        )
        return None

    def _retries(self, expr: Expr | None, scope: Scope) -> int:
        """Return how often a failed step is tried again. Raises ToolRefused for what is no whole number from 0."""
        try:
            value = None if expr is None else evaluate(expr, scope)
        except EvaluateError as error:
            if not self._live.context.live:
                return 0  # it depends on what only a real run can know
            raise ToolRefused(f"retries: {error}") from error
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**31 or value % 1:
            raise ToolRefused(f"retries must be a whole number from 0, got {str(value)[:40]}")
        return int(value)

    # Interrupted steps ------------------------------------------------------------------------------------------

    def _policy(self, action: Action, control: Mapping[str, Expr], effect: str) -> str:
        declared = control.get("on_interrupt")
        if declared is not None:
            word = declared.name if isinstance(declared, Name) else getattr(declared, "value", None)
            if word in {"retry", "ask"} or (word == "check" and "check" in control):
                return str(word)
        if "check" in control:
            return "check"
        if action.name == "tool.engineering_loop":
            return "retry"  # a sweep keeps its own progress
        return _POLICY.get(effect, "ask")

    def _resolve(
        self, pending: StepStarted, policy: str, control: Mapping[str, Expr], scope: Scope
    ) -> tuple[str, Any] | None:
        """Return how the interrupted step ended and its result, None where it is to be done again."""
        if policy == "check" and "check" in control:
            command = evaluate(control["check"], scope)
            try:
                result = self._live.context.tools.call("tool.run", {"cmd": command}, self._live.context)
            except ToolFailed:
                return None
            return ("check", result.output) if not result.planned else None
        if policy != "ask":
            return None
        answers = self._live.journal.state.answers.get(pending.path) or []
        given = len(answers)
        word, _, rest = (answers[-1].text or "").strip().partition(":") if given else ("", "", "")
        match word.strip().lower():
            case "retry":
                return None
            case "done":
                return "answer", rest.strip() or None
            case "fail":
                return "failed", None
        what = " ".join(str(pending.arguments.get("cmd", pending.arguments)).split())[:200]
        prompt = (
            f"Step {pending.path} ({pending.action} {what}) was begun and its end is not in the log: it may have had its "
            "effect or not. Answer `done` (or `done: RESULT`), `retry`, or `fail`."
        )
        raise self.suspend(
            LoopSuspended(
                path=pending.path,
                kind="effect",
                prompt=prompt,
                sha256=arguments_sha256([pending.path, pending.attempt, given]),
                reason="a step was interrupted in mid-effect",
            )
        )

    def suspend(self, event: LoopSuspended) -> Suspended:
        """Put the suspension into the log and return the error to raise."""
        self._live.journal.commit(event)
        return Suspended(event.reason or "waiting for an answer")

    # Models -----------------------------------------------------------------------------------------------------

    def _ask(
        self, action: Action, path: str, step: str, number: int, key: str, arguments: dict[str, Any], scope: Scope,
        pending: StepStarted | None,
    ) -> Any:  # fmt: skip
        began = time.monotonic_ns()
        if pending is None:
            self._live.journal.commit(
                StepStarted(
                    path=path, step=step, number=number, action=QUERY, arguments=shown(arguments),
                    arguments_sha256=arguments_sha256(arguments), key=key, effect="external", policy="retry",
                )
            )  # fmt: skip
        try:
            result = self._asking.ask(arguments, path, scope)
            if isinstance(result, LoopSuspended):
                raise self.suspend(result)
        except StepFailed as error:
            return self._failed(action, path, scope, error, began)
        except EncodeError as error:
            return self._failed(action, path, scope, StepFailed(f"{QUERY}: {one_line(error)}"), began)
        emitted: list[Event] = []
        if action.emit is not None and not result.planned:
            try:
                emitted = self._captured(action.emit, result, path)
            except StepFailed as error:
                return self._failed(action, path, scope, error, began)
        return self._finish(action, path, result, emitted, began)

    # Arguments and trace ----------------------------------------------------------------------------------------

    def _arguments(self, action: Action, scope: Scope) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for one in action.arguments:
            if one.key in _CONTROL:
                continue
            found[one.key] = plain(_values(argument(one.value, scope)))
        return found

    def _recorded(self, pending: StepStarted, action: Action, scope: Scope) -> dict[str, Any]:
        """Return the arguments of a step that was begun before: those of then, not of now."""
        if not any(_is_hash(value) for value in pending.arguments.values()):
            return dict(pending.arguments)
        now = self._arguments(action, scope)
        for name, value in pending.arguments.items():
            if _is_hash(value) and arguments_sha256(now.get(name)) != value["$sha256"]:
                raise ToolRefused(f"step {pending.path}: {name} is not what it was when the step began")
        return {name: now[name] if _is_hash(value) else value for name, value in pending.arguments.items()}

    def _captured(self, case: str, result: ToolResult, path: str) -> list[Event]:
        """Return the trace items in a result: trace lines of its text, or a map that has the fields of the case."""
        items = []
        for line in trace_lines(result.text):
            if case and not _same_case(self._live, case, line.case):
                raise EmitFailed(f"step {path}: line {line.number} is of case {line.case}, and the step emits {case}")
            try:
                items.append(self._live.item(line.case, line.values, line.origin, path))
            except EmitFailed as error:
                raise EmitFailed(f"step {path}: line {line.number} of the output: {error}") from error
        if not items and case and isinstance(result.output, Mapping):
            items.append(self._live.item(case, result.output, "measured", path))
        if not items:
            raise EmitFailed(f'step {path}: its output has no line MORPHOGEN_TRACE {{"case": ...}} to emit')
        return items

    def _goes_on(self, action: Action, scope: Scope) -> bool:
        for one in action.arguments:
            if one.key == "on_failure":
                word = one.value.name if isinstance(one.value, Name) else getattr(one.value, "value", None)
                return word == "continue"
        return False


def argument(expr: Expr, scope: Scope) -> Any:
    """Return what an argument is: a bare word that names nothing is itself (`mode: append`)."""
    if isinstance(expr, Name) and not _names_something(expr.name, scope):
        return expr.name
    return evaluate(expr, scope)


def shown(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as a start records them: very long texts by their hash and length."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        size = _size(value)
        found[name] = value if size <= stored.LARGE else {"$sha256": arguments_sha256(value), "size": size}
    return found


def _is_hash(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"$sha256", "size"}


def _names_something(name: str, scope: Scope) -> bool:
    return name in scope.names or name in scope.constants or name in scope.facts or name in {
        "axiom", "heuristic", "prediction"
    }  # fmt: skip


def _values(value: Any) -> Any:
    """Return a value with trace items as plain maps."""
    if isinstance(value, Item):
        return dict(value)
    if isinstance(value, Mapping):
        return {str(key): _values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_values(item) for item in value]
    return value


def _size(value: Any) -> int:
    try:
        return len(encode(value))
    except EncodeError:
        return stored.LARGE + 1


def _same_case(live: Live, one: str, other: str) -> bool:
    try:
        return bool(live.program.case(one).name == live.program.case(other).name)
    except Exception:  # noqa: BLE001  a spelling that names no case is told by the item itself
        return True
