"""A model may draft a change; the check and the back-test judge it like any other.

It is shown the program and what its runs took, and answers with the whole program. One that does not check is sent back
with its errors, as any answer that does not fit.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from morphogen.schemas import Event, MorphogenError
from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.tree import FieldDecl, NamedType

from ..llm import Backend, Budget, Waiting, answer_type, converse, request
from ..llm.structured import AnswerType
from .errors import ImproveError
from .history import RecordedRun
from .statistics import StepFigures

_DECLARED = {"Change": (FieldDecl("program", NamedType("string")), FieldDecl("why", NamedType("string")))}
_ROLE = """You improve programs of a small language for durable loops. Keep what the program does and how its success is
judged. Make it take fewer steps, less time or fewer tokens. Change as little as you can, and keep every comment."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A whole program that checks, and the reason that was given for it."""

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class _Checked(AnswerType):
    """A change whose program must check."""

    check: Callable[[str], object] = lambda text: None

    def read(self, text: str) -> tuple[Any, str | None]:
        """Return the change, and None or the first errors of its program."""
        value, fault = AnswerType.read(self, text)
        if fault is None:
            try:
                self.check(value["program"])
            except KnowledgeError as error:
                return value, f"the program does not check:\n{error.render() or error}"
        return value, fault


def draft(
    source: str,
    figures: Mapping[str, StepFigures],
    runs: Sequence[RecordedRun],
    backend: Backend,
    *,
    check: Callable[[str], object],
    record: Callable[[Event], Any],
    budget: Budget | None = None,
) -> Draft:
    """Ask for a change. `check` raises KnowledgeError for a program that cannot be used. Raises ImproveError."""
    form = answer_type("Change", _DECLARED)
    context = {"The program": source, "What its steps took": _table(figures), "How its runs ended": _ends(runs)}
    made = request(
        {
            "role": _ROLE,
            "context": context,
            "prompt": "Write the improved program, whole, and why it is better.",
            "returns": "Change",
        },
        step="improve",
        declared=_DECLARED,
    )
    checked = _Checked(form.name, form.schema, form.fields, form.declared, check)
    try:
        outcome = converse(replace(made, answer=checked), backend, record=record, budget=budget)
    except MorphogenError as error:
        raise ImproveError(f"no draft: {error}") from error
    if isinstance(outcome, Waiting):
        raise ImproveError(f"no draft: backend {backend.name} does not answer at once ({outcome.reason})")
    return Draft(outcome.value["program"], outcome.value["why"])


def _table(figures: Mapping[str, StepFigures]) -> str:
    rows = [
        {
            "step": name,
            "runs": one.runs,
            "failed": one.failed,
            "median_seconds": one.median,
            "tokens": one.tokens,
        }
        for name, one in figures.items()
    ]
    return "\n".join(json.dumps(row) for row in rows) or "nothing was recorded"


def _ends(runs: Sequence[RecordedRun]) -> str:
    return "\n".join(f"{run.run}: {run.status}" for run in runs) or "nothing was recorded"
