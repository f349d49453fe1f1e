"""`llm.query` as a step: the conversation is `llm`'s, its place in the run is here."""

from collections.abc import Mapping
from typing import Any

from morphogen.schemas import LoopAnswered, LoopSuspended
from morphogen.schemas.knowledge.evaluate import Scope
from morphogen.schemas.knowledge.tree import Property
from morphogen.schemas.llm import LlmQueried

from .errors import StepFailed
from .live import Live
from .llm import (
    Backend,
    Budget,
    Guidance,
    LlmError,
    Waiting,
    budget_of,
    converse,
    declared_types,
    ledger_of,
    request,
    tighter,
)
from .tools.toolbox import ToolResult

GUIDE = "guide"  # the parameter of a guided run that holds the course
GUIDED = "How a goal like this one was reached before"


class Asking:
    """Ask models for the steps of one run."""

    def __init__(self, live: Live, backend: Backend | None, properties: tuple[Property, ...] = ()) -> None:
        self._live = live
        self._backend = backend
        self._properties = properties

    def ask(self, arguments: Mapping[str, Any], path: str, scope: Scope) -> ToolResult | LoopSuspended:
        """Return the answer, or the suspension that the step ends in. Raises StepFailed for what no answer can be had of."""
        if self._backend is None:
            prompt = arguments.get("prompt") or arguments.get("prompt_template")
            return ToolResult(planned=True, plan={"prompt": prompt})
        queried = [one for one in self._live.journal.past(("llm",)) if isinstance(one.event, LlmQueried)]
        events = [one.event for one in queried if isinstance(one.event, LlmQueried)]
        here = [one.event for one in queried if one.path == path and isinstance(one.event, LlmQueried)]
        program = self._live.program
        try:
            made = request(
                self._guided(arguments),
                step=path,
                guidance=self._guidance(scope),
                declared=declared_types(program.module, *program.used_modules.values()),
                ledger=ledger_of(events),
            )
            outcome = converse(
                made,
                self._backend,
                record=lambda event: self._live.record(path, [event]),
                budget=tighter(budget_of(self._properties, scope), self._granted()),
                past=here,
                answers=[self._text(one) for one in self._live.journal.state.answers.get(path, ())],
            )
        except LlmError as error:
            raise StepFailed(str(error)) from error
        if isinstance(outcome, Waiting):
            query = outcome.query
            return LoopSuspended(
                path=path,
                kind="query",
                prompt=query.prompt,
                sha256=query.sha256,
                reason=outcome.reason,
                system=query.system,
                answer_schema=query.schema,
            )
        return ToolResult(output=outcome.value, text=outcome.text, resources={"attempts": outcome.attempts})

    def _guidance(self, scope: Scope) -> Guidance:
        from .grounding import said

        models = self._live.program.models.values()
        texts = {
            kind: tuple(said(one, scope) for model in models for one in getattr(model, kind))
            for kind in ("axioms", "heuristics", "predictions")
        }
        return Guidance(**texts, advice=self._live.context.advice)

    def _granted(self) -> Budget | None:
        """Return what whoever asked for this execution lets it spend."""
        traced = self._live.journal.state.traced
        if traced is None or traced.budget_microusd is None:
            return None
        return Budget(cost_usd_micros=max(0, traced.budget_microusd - traced.delegated))

    def _guided(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the arguments with the course that guides this run in their context, where one does."""
        traced = self._live.journal.state.traced
        guide = self._live.context.parameters.get(GUIDE)
        if traced is None or traced.mode != "mixed" or not isinstance(guide, str) or not guide:
            return arguments
        context = arguments.get("context")
        if isinstance(context, Mapping):
            return {**arguments, "context": {**context, GUIDED: guide}}
        said = [] if context is None else list(context) if isinstance(context, list | tuple) else [context]
        return {**arguments, "context": [*said, f"{GUIDED}:\n{guide}"]}

    def _text(self, answered: LoopAnswered) -> str:
        if answered.text_blob is not None and self._live.context.bus is not None:
            return self._live.context.bus.blobs.get(answered.text_blob).decode("utf-8", "replace")
        return answered.text or ""
