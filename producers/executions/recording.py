"""An execution as its author sees it: call tools, say what was asked of a model, say how it ended.

    with execution("Sum the column price of shop.csv", params={"column": "price"}, capabilities=tools) as ex:
        text = ex.call("files.read_text", path="shop.csv")
        ex.finish(total(text), judged_by="assertion")

Each step is on disk before the next begins. A kill leaves an execution that has begun and never ended.
"""

import contextlib
import inspect
import threading
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

from morphogen.kernels.sandbox.values import canonical, canonical_sha256, value_sha256
from morphogen.schemas.executions import (
    EFFECTS,
    JUDGES,
    KINDS,
    OUTCOMES,
    ExecutionFinished,
    ExecutionStarted,
    ExecutionStep,
)
from morphogen.schemas.settling import settled
from morphogen.schemas.whole import lasted, whole_if_known

from .errors import ExecutionError
from .judging import feedback
from .outlets import Outlet
from .prices import Prices
from .telling import by_its_name, by_name, one_line, outcome_of, score_of

if TYPE_CHECKING:
    from morphogen.kernels.sandbox import Capabilities, Declared

INLINE = 16 * 1024  # bytes of a value that travels in its event
_current: "ContextVar[Execution | None]" = ContextVar("morphogen_execution", default=None)


class Execution:
    """One attempt at a goal. Made by `execution`; a context manager; safe to use from several threads."""

    def __init__(
        self, started: ExecutionStarted, out: Outlet, capabilities: "Capabilities | None", prices: Prices
    ) -> None:
        self.started = started
        self._out = out
        self._capabilities = capabilities
        self._prices = prices
        self._lock = threading.RLock()
        self._began: int | None = None
        self._cause: str | None = None
        self._steps = 0
        self._known_microusd = 0
        self._unknown = False
        self._token: Token[Execution | None] | None = None
        self.finished: ExecutionFinished | None = None
        """How it ended; None before."""

    @property
    def id(self) -> str:
        """The name under which its events stand."""
        return self.started.execution

    @property
    def signature(self) -> str:
        """The family of its goal."""
        return self.started.signature

    @property
    def params(self) -> Mapping[str, Any]:
        """The parameters as they were recorded."""
        return self.started.params

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return self._steps

    @property
    def spent_microusd(self) -> int | None:
        """What its models have cost so far; None where one of them has no price."""
        return None if self._unknown else self._known_microusd

    def begin(self) -> "Execution":
        """Begin, for those who cannot use `with`; `finish` (or `fail`) is then theirs to call."""
        with self._lock:
            if self._began is None:
                self._began = time.perf_counter_ns()
                self._cause = self._out.tell(self.started)
        return self

    def call(self, name: str, /, *args: Any, **named: Any) -> Any:
        """Use a declared tool, record it, and return what it returned. What it raises is recorded and raised again.

        Arguments are recorded by name. Raises ExecutionError where no tool of that name is declared, or it is one to be
        awaited: use `acall`.
        """
        declared = self._declared(name)
        if inspect.iscoroutinefunction(declared.function):
            raise ExecutionError(f"the tool {name!r} is to be awaited; use `await ex.acall({name!r}, ...)`")
        with self._using(name, declared, args, named) as use:
            use.result = declared.function(*args, **named)
        return use.result

    async def acall(self, name: str, /, *args: Any, **named: Any) -> Any:
        """Use a declared tool that may have to be awaited, and record it as `call` does."""
        declared = self._declared(name)
        with self._using(name, declared, args, named) as use:
            found = declared.function(*args, **named)
            use.result = await found if inspect.isawaitable(found) else found
        return use.result

    def step(
        self,
        name: str,
        args: Mapping[str, Any] | None = None,
        result: Any = None,
        *,
        kind: str = "tool",
        effect: str = "external",
        error: BaseException | str | None = None,
        duration_ns: float = 0,
        tokens_in: float | None = None,
        tokens_out: float | None = None,
        cost_microusd: float | None = None,
        model: str | None = None,
        priced_by: str | None = None,
    ) -> int:
        """Record a step that was taken elsewhere; return its number. With `error` it failed, and `result` is not kept.

        Cost, tokens and duration are rounded to whole ones. Raises ExecutionError for one that is negative (a duration is
        0 then), NaN or no number, for a kind or effect that there is not, and where the execution is not under way.
        """
        if kind not in KINDS or effect not in EFFECTS:
            raise ExecutionError(f"a step is of kind {' or '.join(KINDS)} and of effect {', '.join(EFFECTS)}, "
                                 f"got {kind!r} and {effect!r}")  # fmt: skip
        given = {str(key): value for key, value in settled(by_its_name("args", args)).items()}
        took = lasted("duration_ns", duration_ns, ExecutionError)
        read, wrote, cost = _counted(tokens_in, tokens_out, cost_microusd)
        ok = error is None
        value, digest, blob = self._held(result) if ok else (None, None, None)
        if cost is not None and priced_by is None:
            priced_by = "told"
        with self._lock:
            self._under_way(f"step {name}")
            number, self._steps = self._steps, self._steps + 1
            if kind == "llm" and cost is None:
                self._unknown = True
            self._known_microusd += cost or 0
            self._out.tell(
                ExecutionStep(
                    execution=self.id, number=number, kind=settled(kind), name=settled(str(name)), args=given,
                    args_sha256=value_sha256(given), result=value, result_sha256=digest, result_blob=blob,
                    effect=settled(effect), ok=ok, error=None if error is None else one_line(error), duration_ns=took,
                    tokens_in=read, tokens_out=wrote, cost_microusd=cost,
                    model=None if model is None else settled(str(model)),
                    priced_by=None if priced_by is None else settled(str(priced_by)),
                ),
                self._cause,
            )  # fmt: skip
        return number

    def asked(
        self,
        *,
        prompt: str,
        reply: Any = None,
        model: str | None = None,
        backend: str = "",
        tokens_in: float | None = None,
        tokens_out: float | None = None,
        cost_microusd: float | None = None,
        duration_ns: float = 0,
        error: BaseException | str | None = None,
        name: str = "llm.query",
        **args: Any,
    ) -> int:
        """Record that a model was asked; return the step's number. `args` are what else was sent (system, schema, ...).

        `cost_microusd` is what the endpoint told. Without it the configured price of `model` is used; a model without one
        costs None, and so does the execution then. With the backend `script` no model was asked, and the cost is 0.
        Numbers are taken, and refused, as by `step`.
        """
        read, wrote, cost = _counted(tokens_in, tokens_out, cost_microusd)
        model = None if model is None else str(model)
        priced_by = None if cost is None else "told"
        if cost is None:
            cost, priced_by = self._prices.cost(model, read, wrote, backend=backend)
        if backend:
            args = {"backend": backend, **args}
        return self.step(
            name, {"prompt": prompt, **args}, reply, kind="llm", effect="read", error=error, duration_ns=duration_ns,
            tokens_in=read, tokens_out=wrote, cost_microusd=cost, model=model, priced_by=priced_by,
        )  # fmt: skip

    def finish(
        self,
        output: Any = None,
        *,
        outcome: str = "success",
        judged_by: str = "nobody",
        score: float | None = None,
        error: BaseException | str | None = None,
        cost_microusd: float | None = None,
    ) -> None:
        """Say how it ended and who judged that. `output` is the answer to the goal.

        The cost is the sum of the steps', unless it is given (and is rounded); None where that of a model is not known.
        Raises ExecutionError where it has ended before, for an outcome or a judge that there is not, and for a cost or a
        score that is none.
        """
        if outcome not in OUTCOMES or judged_by not in JUDGES:
            raise ExecutionError(f"an outcome is one of {', '.join(OUTCOMES)}, judged by one of {', '.join(JUDGES)}; "
                                 f"got {outcome!r} and {judged_by!r}")  # fmt: skip
        told, scored = whole_if_known("cost_microusd", cost_microusd, ExecutionError), score_of(score)
        value, digest, blob = self._held(output)
        with self._lock:
            began = self._under_way("finish")
            self.finished = ExecutionFinished(
                execution=self.id, outcome=settled(outcome), judged_by=settled(judged_by), score=scored, output=value,
                output_sha256=digest, output_blob=blob, steps=self._steps,
                duration_ns=time.perf_counter_ns() - began,
                cost_microusd=self.spent_microusd if told is None else told,
                error=None if error is None else one_line(error),
            )  # fmt: skip
            self._out.tell(self.finished, self._cause)

    def fail(self, error: BaseException | str, *, outcome: str = "failure", judged_by: str = "exception") -> None:
        """Say that it came to nothing, and why."""
        self.finish(outcome=outcome, judged_by=judged_by, error=error)

    def cancel(self, reason: str = "cancelled") -> None:
        """Say that it was given up; that counts neither for nor against the way it was pursued."""
        self.finish(outcome="cancelled", error=reason)

    def feedback(self, outcome: str, *, judged_by: str = "user", note: str = "") -> None:
        """Judge it after its end; the newest judgement counts."""
        feedback(self.id, outcome, judged_by=judged_by, note=note, to=self._out)

    def __enter__(self) -> "Execution":
        self.begin()
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            with contextlib.suppress(ValueError):  # it was left in another context than it was entered in
                _current.reset(self._token)
            self._token = None
        with self._lock:
            if error is None or (isinstance(error, SystemExit) and error.code in {None, 0}):
                if self.finished is None:
                    self.finish()
            elif self.finished is None:
                self.finish(outcome=outcome_of(error), judged_by="exception", error=error)
            elif self.finished.outcome == "success" and outcome_of(error) != "cancelled":
                self.feedback("failure", judged_by="exception", note=one_line(error))

    def __repr__(self) -> str:
        return f"<execution {self.id} of {self.started.template!r}>"

    def _declared(self, name: str) -> "Declared":
        declared = None if self._capabilities is None else self._capabilities.functions.get(name)
        if declared is None:
            known = () if self._capabilities is None else self._capabilities.names
            raise ExecutionError(
                f"there is no tool {name!r} here, only {', '.join(known) or 'none'}; declare it in the capabilities"
            )
        return declared

    @contextlib.contextmanager
    def _using(
        self, name: str, declared: "Declared", args: tuple[Any, ...], named: Mapping[str, Any]
    ) -> "Iterator[_Use]":
        """Take the time of one use of a tool, and record it; what was not under way is not begun."""
        self._under_way(f"tool {name}")
        given = settled(by_name(declared.function, args, named))  # as they are now: a tool may change what it is given
        use = _Use()
        began = time.perf_counter_ns()
        try:
            yield use
        except BaseException as error:
            self.step(name, given, error=error, effect=declared.effect, duration_ns=time.perf_counter_ns() - began)
            raise
        self.step(name, given, use.result, effect=declared.effect, duration_ns=time.perf_counter_ns() - began)

    def _under_way(self, what: str) -> int:
        if self._began is None:
            raise ExecutionError(f"{what}: the execution has not begun; use it in a `with` block, or call begin()")
        if self.finished is not None:
            raise ExecutionError(
                f"{what}: the execution has ended as {self.finished.outcome}; judge it with feedback()"
            )
        return self._began

    def _held(self, result: Any) -> tuple[Any, str | None, str | None]:
        """Return the value as it goes into its event, its hash, and the blob that holds it where it is large."""
        value = settled(result)
        data = canonical(value)
        blob = self._out.keep(data) if len(data) > INLINE else None
        return (value if blob is None else None), canonical_sha256(data), blob


def _counted(*numbers: float | None) -> Iterator[int | None]:
    """Yield tokens in, tokens out and cost as whole numbers."""
    for name, number in zip(("tokens_in", "tokens_out", "cost_microusd"), numbers, strict=True):
        yield whole_if_known(name, number, ExecutionError)


class _Use:
    """What a tool returned."""

    result: Any = None


def current() -> Execution | None:
    """Return the execution whose `with` block this is, None outside of any."""
    return _current.get()
