"""From the arguments of an `llm.query` to the query: the same arguments make the same text, and so the same hash.

The system text: the role, the system text of the call, the axioms, heuristics and predictions of the system model, the advice of
rules whose conditions are words, and the form of the answer. The user text: the context, then the question.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from morphogen.schemas import jsonable
from morphogen.schemas.knowledge.tree import FieldDecl

from .backend import Query, prompt_sha256
from .budget import Ledger
from .errors import PromptError
from .structured import AnswerType, answer_type

SAMPLING = ("model", "temperature", "top_p", "max_tokens", "seed", "stop", "timeout")
TAKES = ("prompt", "prompt_template", "role", "system", "context", "returns", "schema", "repairs", "advice", *SAMPLING)


@dataclass(frozen=True, slots=True)
class Guidance:
    """What a program says to every model that it asks, as texts in the order written."""

    axioms: Sequence[str] = ()
    heuristics: Sequence[str] = ()
    predictions: Sequence[str] = ()
    advice: Sequence[str] = ()  # one line for each rule that holds by words only


@dataclass(frozen=True, slots=True)
class Request:
    """A query that is ready to be asked, the form of its answer, and how often a wrong answer is sent back."""

    query: Query
    answer: AnswerType | None = None
    repairs: int = 2
    ledger: Ledger = field(default_factory=Ledger)


def request(
    arguments: Mapping[str, Any],
    *,
    step: str,
    guidance: Guidance | None = None,
    declared: Mapping[str, tuple[FieldDecl, ...]] | None = None,
    defaults: Mapping[str, Any] | None = None,
    ledger: Ledger | None = None,
) -> Request:
    """Return the request that the evaluated arguments of an `llm.query` make.

    `declared` are the types an answer may have (`structured.declared_types`), `defaults` sampling options of the
    backend or the loop under those of the call, `ledger` the run's so far. Raises PromptError.
    """
    _check_names(arguments)
    books = ledger or Ledger()
    wanted = arguments.get("returns") if arguments.get("returns") is not None else arguments.get("schema")
    form = None if wanted is None else answer_type(wanted, declared or {})
    guide = guidance or Guidance()
    if arguments.get("advice") is False:
        guide = Guidance(guide.axioms, guide.heuristics, guide.predictions)
    system = _system(arguments, guide, form)
    prompt = _user(arguments)
    asked = {**(defaults or {}), **{name: value for name, value in arguments.items() if value is not None}}
    options = {name: _option(name, asked[name]) for name in SAMPLING if asked.get(name) is not None}
    schema = None if form is None else form.schema
    sha256 = prompt_sha256(prompt, system, schema)
    query = Query(prompt, system, schema, options, step, 0, books.answered.get(sha256, 0), books.replies, sha256)
    return Request(query, form, _repairs(arguments.get("repairs")), books)


def _check_names(arguments: Mapping[str, Any]) -> None:
    for name in arguments:
        if name not in TAKES:
            near = difflib.get_close_matches(name, TAKES, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(TAKES)}"
            raise PromptError(f"llm.query takes no {name!r}: {hint}")


def _option(name: str, value: Any) -> Any:
    """Return a sampling option as every backend takes it. Raises PromptError."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in {"max_tokens", "seed"} and number and float(value).is_integer() and (name == "seed" or value >= 1):
        return int(value)  # arithmetic of the language gives floats
    if name == "timeout" and number and value > 0:
        return float(value)
    if name in {"temperature", "top_p"} and number and value >= 0:
        return value
    if name == "model" and isinstance(value, str) and value:
        return value
    if name == "stop" and isinstance(value, str):
        return value
    if name == "stop" and isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return list(value)
    raise PromptError(f"llm.query: {name} cannot be {value!r}")


def _system(arguments: Mapping[str, Any], guide: Guidance, form: AnswerType | None) -> str | None:
    parts = [_text(arguments[name], name) for name in ("role", "system") if arguments.get(name)]
    for title, lines in (
        ("Axioms, which always hold:", guide.axioms),
        ("Heuristics, which usually help:", guide.heuristics),
        ("Predictions, which are to be tested:", guide.predictions),
        ("Advice. Judge by yourself where its condition holds:", guide.advice),
    ):
        if lines:
            parts.append("\n".join([title, *(f"{number}. {line}" for number, line in enumerate(lines))]))
    if form is not None:
        parts.append(
            "Answer with one JSON object that fits this JSON schema, and nothing after it:\n"
            + json.dumps(form.schema, ensure_ascii=False)
        )
    return "\n\n".join(parts) or None


def _user(arguments: Mapping[str, Any]) -> str:
    said = [name for name in ("prompt", "prompt_template") if arguments.get(name) is not None]
    if len(said) != 1:
        raise PromptError("llm.query: give one of prompt and prompt_template")
    question = _text(arguments[said[0]], said[0])
    if not question.strip():
        raise PromptError(f"llm.query: {said[0]} is empty")
    context = arguments.get("context")
    if context is None:
        return question
    if isinstance(context, Mapping):
        titled = [(str(name), value) for name, value in context.items()]
    else:
        items = context if isinstance(context, list | tuple) else [context]
        titled = [(f"Context {number}", value) for number, value in enumerate(items, start=1)]
    sections = [f"{title}:\n{_shown(value)}" for title, value in titled]
    return "\n\n".join([*sections, question])


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise PromptError(f"llm.query: {name} is a text, got {type(value).__name__}")
    return value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(jsonable(value), ensure_ascii=False)


def _repairs(value: Any) -> int:
    if value is None:
        return 2
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 20:
        raise PromptError(f"llm.query: repairs is a number from 0 to 20, got {value!r}")
    return value
