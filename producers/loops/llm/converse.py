"""One conversation: ask, check the answer, send it back where it does not fit, and write each call into the log.

    outcome = converse(request, backend, record=journal.emit, past=recorded, answers=texts)

It can be taken up again anywhere: calls that are in the log already (`past`) are not made again, so nothing is paid
twice, and answers from outside (`answers`) go through the same checks as a model's.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from morphogen.schemas import Event, encode
from morphogen.schemas.llm import LlmBudgetExceeded, LlmQueried

from .backend import Backend, JsonSchema, Query, Reply, Suspend, prompt_sha256
from .budget import ANSWER, Budget, Granted, Ledger, Refused, reserve
from .errors import AnswerError, BackendError, BudgetExceeded, LlmError
from .prompt import Request

Record = Callable[[Event], Any]

# An event has to fit into a frame, whatever was asked and answered.
_PROMPT_KEPT = 64 * 1024  # bytes of a prompt that the log holds
_SYSTEM_KEPT = 32 * 1024  # of a system text
_SCHEMA_KEPT = 16 * 1024  # of a schema
_ERROR_KEPT = 2000  # characters
REPLY_MAX = 256 * 1024  # bytes of a reply
_QUOTED = 4000  # characters of a wrong answer that are shown to its author


@dataclass(frozen=True, slots=True)
class Answered:
    """The conversation is over. `value` is the checked object, or the text where no type was declared."""

    value: Any
    text: str
    attempts: int
    ledger: Ledger


@dataclass(frozen=True, slots=True)
class Waiting:
    """The conversation stops here until an answer to `query` is there."""

    reason: str
    query: Query
    ledger: Ledger


def converse(
    request: Request,
    backend: Backend,
    *,
    record: Record,
    budget: Budget | None = None,
    past: Sequence[LlmQueried] = (),
    answers: Sequence[str] = (),
    clock: Callable[[], int] = time.monotonic_ns,
) -> Answered | Waiting:
    """Ask until the answer fits, and return it; or return what is waited for.

    `record` writes one event into the log and returns when it is safe there. `past` are the `llm.queried` events that this very step
    wrote before (in an earlier process), in order, and are part of `request.ledger` already. `answers` are the texts
    that were given for this step from outside, in order, those of earlier processes included; longer ones than `REPLY_MAX` bytes
    are passed over.

    Raises BackendError, AnswerError where the last repair does not fit either, BudgetExceeded where the budget says `fail`.
    """
    known = [event for event in past if event.reply is not None]
    usable = [one for one in answers if not _too_long(one)]
    unused = usable[sum(event.backend == ANSWER for event in known) :]
    ledger, query = request.ledger, request.query
    text, fault = "", ""
    for attempt in range(request.repairs + 1):
        query = _repair(request.query, text, fault, attempt)
        event = known[attempt] if attempt < len(known) else None
        if event is not None and event.prompt_sha256 != query.sha256:
            event, known = None, known[:attempt]  # the question is another one now
        if event is None:
            query = replace(query, occurrence=ledger.answered.get(query.sha256, 0), call=ledger.replies)
            outcome = (
                _answered(unused.pop(0), query, request, record)
                if unused
                else _called(query, backend, request, budget, ledger, record, clock)
            )
            if isinstance(outcome, Suspend):
                reason = f"{outcome.reason}; the last answer did not fit: {fault}" if fault else outcome.reason
                if len(usable) < len(answers):
                    reason += f"; an answer of more than {REPLY_MAX // 1024} KiB was passed over"
                return Waiting(reason, query, ledger)
            event = outcome
            ledger = ledger.after(event)
        text = event.reply or ""
        value, wrong = (text, None) if request.answer is None else request.answer.read(text)
        if wrong is None:
            return Answered(value, text, attempt + 1, ledger)
        fault = wrong + ("; it was cut off at its largest length" if event.finish == "length" else "")
    tried = f"{request.repairs + 1} answers" if request.repairs else "the answer"
    raise AnswerError(
        f"step {request.query.step}: {tried} did not fit {request.answer.name if request.answer else 'text'}; "
        f"the last one: {fault}",
        text,
    )


def _repair(query: Query, text: str, fault: str, attempt: int) -> Query:
    """Return the question of an attempt: the first one as it is, a later one with the wrong answer and its faults."""
    if attempt == 0:
        return query
    quoted = text if len(text) <= _QUOTED else f"{text[:_QUOTED]} ... ({len(text) - _QUOTED} more characters)"
    prompt = (
        f"{query.prompt}\n\nYour last answer was:\n{quoted}\n\n"
        f"It cannot be used: {fault}\nAnswer again, the whole object."
    )
    sha256 = prompt_sha256(prompt, query.system, query.schema)
    return replace(query, prompt=prompt, attempt=attempt, sha256=sha256)


def _answered(text: str, query: Query, request: Request, record: Record) -> LlmQueried:
    """Record an answer from outside."""
    event = _event(query, ANSWER, Reply(text, model=""), request, None)
    record(event)
    return event


def _called(
    query: Query,
    backend: Backend,
    request: Request,
    budget: Budget | None,
    ledger: Ledger,
    record: Record,
    clock: Callable[[], int],
) -> LlmQueried | Suspend:
    """Make one call within the budget and record it, whether it comes through or not."""
    granted = Granted(query, None, None) if budget is None else reserve(query, backend, budget, ledger)
    if isinstance(granted, Refused):
        return _over(query, backend, granted, "fail" if budget is None else budget.on_breach, record)
    began = clock()
    try:
        reply = backend.ask(granted.query)
        if isinstance(reply, Suspend):
            return reply
        if _too_long(reply.text):
            raise BackendError(
                f"backend {backend.name}: the reply is longer than {REPLY_MAX // 1024} KiB: set max_tokens"
            )
    except LlmError as error:
        if not isinstance(error, BackendError) or error.called:
            spent = granted if not isinstance(error, BackendError) or error.may_cost else Granted(query, None, None)
            record(_event(granted.query, backend.name, None, request, spent, str(error), clock() - began))
        raise
    event = _event(granted.query, backend.name, reply, request, granted, latency_ns=reply.latency_ns or clock() - began)
    record(event)
    return event


def _over(query: Query, backend: Backend, refused: Refused, action: str, record: Record) -> Suspend:
    record(
        LlmBudgetExceeded(
            step=query.step,
            backend=backend.name,
            prompt_sha256=query.sha256,
            resource=refused.resource,
            limit=refused.limit,
            spent=refused.spent,
            needed=refused.needed,
            action=action,
        )
    )
    message = f"budget of {refused.resource} for models: {refused.why}"
    if action == "suspend":
        return Suspend(message)
    raise BudgetExceeded(f"step {query.step}: {message}", refused.resource)


def _event(
    query: Query,
    backend: str,
    reply: Reply | None,
    request: Request,
    granted: Granted | None,
    error: str | None = None,
    latency_ns: int = 0,
) -> LlmQueried:
    fits: bool | None = None
    if reply is not None and request.answer is not None:
        _, error = request.answer.read(reply.text)
        fits = error is None
    size = len(query.prompt.encode("utf-8", "replace"))
    return LlmQueried(
        step=query.step,
        backend=backend,
        model=(reply.model if reply is not None else "") or str(query.options.get("model", "")),
        prompt_sha256=query.sha256,
        prompt=_head(query.prompt, _PROMPT_KEPT),
        prompt_bytes=size,
        system=None if query.system is None else _head(query.system, _SYSTEM_KEPT),
        answer_schema=query.schema if _size(query.schema) <= _SCHEMA_KEPT else None,
        options=dict(query.options),
        attempt=query.attempt,
        occurrence=query.occurrence,
        reply=None if reply is None else reply.text.encode("utf-8", "replace").decode(),
        fits=fits,
        error=None if error is None else error[:_ERROR_KEPT],
        tokens_in=None if reply is None else reply.tokens_in,
        tokens_out=None if reply is None else reply.tokens_out,
        cost_usd_micros=None if reply is None else reply.cost_usd_micros,
        reserved_tokens=None if granted is None else granted.tokens,
        reserved_usd_micros=None if granted is None else granted.cost_usd_micros,
        latency_ns=latency_ns,
        retries=0 if reply is None else reply.retries,
        finish=None if reply is None else reply.finish,
    )


def _too_long(text: str) -> bool:
    return len(text.encode("utf-8", "replace")) > REPLY_MAX


def _head(text: str, size: int) -> str:
    return text.encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def _size(schema: JsonSchema | None) -> int:
    return 0 if schema is None else len(encode(schema))
