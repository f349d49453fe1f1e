"""What was asked of a model and what came back, and where a budget stood in the way."""

from typing import Any

import msgspec

from .event import Event


class LlmQueried(Event, type="llm.queried", version=1):
    """One call to a backend, or one answer of a person, with what it took. A repair is a call of its own.

    `reply` is None where the call failed (`error` says how). `fits` says whether the reply has the declared type; None
    where none was declared. Tokens and cost are None where nobody knows them, never 0 in their place: then the
    `reserved` ones, the most that the call could have taken, count against a budget.
    """

    step: str
    backend: str  # "answer" where a person or another program answered
    prompt_sha256: str
    prompt: str  # its head where it is longer than 64 KiB
    prompt_bytes: int
    model: str = ""
    system: str | None = None  # its head where it is longer than 32 KiB
    answer_schema: dict[str, Any] | None = None  # None also where it is larger than 16 KiB
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    attempt: int = 0  # repairs of this answer so far
    occurrence: int = 0  # how often this very prompt was answered before in the run
    reply: str | None = None
    fits: bool | None = None
    error: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost_usd_micros: int | None = None  # millionths of a US dollar
    reserved_tokens: int | None = None
    reserved_usd_micros: int | None = None
    latency_ns: int = 0
    retries: int = 0  # calls that failed before this one came through
    finish: str | None = None  # why the model stopped, in the endpoint's word


class LlmBudgetExceeded(Event, type="llm.budget_exceeded", version=1):
    """A call was not made, because at worst it would have gone over a budget."""

    step: str
    backend: str
    prompt_sha256: str
    resource: str  # calls | tokens | cost_usd_micros | seconds
    limit: float
    spent: float
    action: str  # fail | suspend
    needed: float | None = None  # the most that the call could have taken; None where nobody can tell
