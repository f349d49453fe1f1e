"""Budgets: what a run may spend on models, checked before a call is made, at the worst it could cost.

The worst of a call: its prompt may have a token for every `1 / tokens_per_byte` bytes (one a byte, which no
byte-level tokenizer exceeds, unless the backend counts for itself), and the reply all of `max_tokens`. Where the
call sets no `max_tokens`, the reply is capped at what the budget leaves.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import msgspec

from morphogen.schemas.knowledge.errors import EvaluateError
from morphogen.schemas.knowledge.evaluate import Scope, evaluate
from morphogen.schemas.knowledge.tree import Literal, MapExpr, Name, Property
from morphogen.schemas.knowledge.units import convert
from morphogen.schemas.llm import LlmQueried

from .backend import Backend, Query
from .errors import PromptError

ANSWER = "answer"  # the backend's name where a person answered: no call, no cost
_OVERHEAD = 64  # tokens that a chat template may add


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model costs, in millionths of a US dollar for a million tokens (so 150000 is 0.15 USD)."""

    input: int
    output: int

    def of(self, tokens_in: int, tokens_out: int) -> int:
        """Return the cost in millionths of a US dollar, rounded up."""
        return -(-(self.input * tokens_in + self.output * tokens_out) // 1_000_000)


@runtime_checkable
class Priced(Protocol):
    """A backend that knows what a call costs. One that lacks this costs nobody knows what."""

    def price(self, query: Query) -> Price | None:
        """Return the price of the model that would answer, or None where it is unknown."""
        ...


@runtime_checkable
class Counting(Protocol):
    """A backend that counts the tokens of a prompt as its model does."""

    def count_tokens(self, query: Query) -> int:
        """Return how many tokens the prompt has, the chat template included."""
        ...


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most that a run may spend; None is no limit.

    `calls` counts calls that came through or may have; `seconds` is time spent waiting for backends. `on_breach` says
    whether the step fails or the loop suspends. `tokens_per_byte` makes the worst case milder: 0.34 is usual English.
    """

    calls: int | None = None
    tokens: int | None = None
    cost_usd_micros: int | None = None
    seconds: float | None = None
    on_breach: str = "fail"
    tokens_per_byte: float = 1.0


class Ledger(msgspec.Struct, frozen=True):
    """What a run has spent, and how often each prompt was answered: a fold over its `llm.queried` events."""

    calls: int = 0
    tokens: int = 0
    cost_usd_micros: int = 0
    latency_ns: int = 0
    replies: int = 0
    answered: dict[str, int] = msgspec.field(default_factory=dict)

    def after(self, event: LlmQueried) -> "Ledger":
        """Return the ledger with one more event in it."""
        answered, replies = self.answered, self.replies
        if event.reply is not None:
            answered = answered | {event.prompt_sha256: answered.get(event.prompt_sha256, 0) + 1}
            replies += 1
        if event.backend == ANSWER:
            return msgspec.structs.replace(self, answered=answered, replies=replies)
        used = None if event.tokens_in is None or event.tokens_out is None else event.tokens_in + event.tokens_out
        return Ledger(
            self.calls + 1,
            self.tokens + _known(used, event.reserved_tokens),
            self.cost_usd_micros + _known(event.cost_usd_micros, event.reserved_usd_micros),
            self.latency_ns + event.latency_ns,
            replies,
            answered,
        )


def ledger_of(events: Iterable[LlmQueried]) -> Ledger:
    """Return the ledger of a run from its events in order."""
    ledger = Ledger()
    for event in events:
        ledger = ledger.after(event)
    return ledger


@dataclass(frozen=True, slots=True)
class Granted:
    """A call may be made: the query with its caps, and the most it can take (None: nobody can tell)."""

    query: Query
    tokens: int | None
    cost_usd_micros: int | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A call may not be made."""

    resource: str
    limit: float
    spent: float
    needed: float | None
    why: str


def tighter(one: Budget | None, other: Budget | None) -> Budget | None:
    """Return the budget that holds where both do: the lower of each limit. The first one says what a breach does."""
    if one is None or other is None:
        return one or other
    lower = {
        name: min((limit for limit in (getattr(one, name), getattr(other, name)) if limit is not None), default=None)
        for name in ("calls", "tokens", "cost_usd_micros", "seconds")
    }
    return msgspec.structs.replace(one, **lower, tokens_per_byte=max(one.tokens_per_byte, other.tokens_per_byte))


def budget_of(properties: Sequence[Property], scope: Scope) -> Budget | None:
    """Return the budget among the properties of a task or a loop, None where there is none. Raises PromptError.

    A length of time may be in any unit, and `on_breach` a bare word.
    """
    found = next((one.value for one in properties if one.key == "budget"), None)
    if found is None:
        return None
    if not isinstance(found, MapExpr):
        raise PromptError("budget: write a map, such as { calls: 20, tokens: 50000, cost_usd: 0.5, time: 10 min }")
    given: dict[str, Any] = {}
    for one in found.items:
        given[one.key] = _amount_of(one, scope)
    return read_budget(given)


def _amount_of(one: Property, scope: Scope) -> Any:
    match one.value:
        case Name(name=word) if word not in scope.names and word not in scope.constants:
            return word
        case Literal(value=value, unit=str() as unit) if isinstance(value, int | float):
            wanted = {"cost_usd": "USD", "time": "s", "seconds": "s"}.get(one.key)
            if wanted is None:
                raise PromptError(f"budget: {one.key} is a plain number, got {value} {unit}")
            try:
                return convert(value, unit, wanted)
            except ValueError as error:
                raise PromptError(f"budget: {one.key}: {error}") from error
    try:
        return evaluate(one.value, scope)
    except EvaluateError as error:
        raise PromptError(f"budget: {one.key}: {error}") from error


def read_budget(properties: Mapping[str, Any]) -> Budget:
    """Return the budget that a `budget: { calls: tokens: cost_usd: time: on_breach: }` map says.

    `cost_usd` is in dollars and `time` (or `seconds`) in seconds; `cost_usd_micros` says the same in integers. Raises
    PromptError.
    """
    given = dict(properties)
    if "cost_usd" in given:
        dollars = given.pop("cost_usd")
        if isinstance(dollars, bool) or not isinstance(dollars, int | float) or not 0 <= dollars < 1e12:
            raise PromptError(f"budget: cost_usd is an amount of dollars, got {dollars!r}")
        given["cost_usd_micros"] = round(dollars * 1_000_000)
    if "time" in given:
        given["seconds"] = given.pop("time")
    for name in ("calls", "tokens", "cost_usd_micros"):
        value = given.get(name)
        if isinstance(value, float) and value.is_integer():
            given[name] = int(value)  # arithmetic of the language gives floats
    try:
        budget = msgspec.convert(given, Budget)
    except msgspec.ValidationError as error:
        known = "calls, tokens, cost_usd, time, on_breach, tokens_per_byte"
        raise PromptError(f"budget: {error}; it takes {known}") from error
    if budget.on_breach not in {"fail", "suspend"}:
        raise PromptError(f'budget: on_breach is "fail" or "suspend", got {budget.on_breach!r}')
    limits = (budget.calls, budget.tokens, budget.cost_usd_micros, budget.seconds)
    if any(limit is not None and limit < 0 for limit in limits) or not budget.tokens_per_byte > 0:
        raise PromptError("budget: a limit is not negative, and tokens_per_byte is above 0")
    return budget


def reserve(query: Query, backend: Backend, budget: Budget, ledger: Ledger) -> Granted | Refused:
    """Return the query with its caps where even the worst it could take is left of the budget, else the reason."""
    tokens_in = prompt_tokens(query, backend, budget.tokens_per_byte)
    price = backend.price(query) if isinstance(backend, Priced) else None
    asked = query.options.get("max_tokens")
    cap = asked if isinstance(asked, int) and not isinstance(asked, bool) else None
    if budget.calls is not None and ledger.calls + 1 > budget.calls:
        return _refused("calls", budget.calls, ledger.calls, 1)
    left_s = None if budget.seconds is None else budget.seconds - ledger.latency_ns / 1e9
    if budget.seconds is not None and left_s is not None and left_s <= 0:
        return _refused("seconds", budget.seconds, ledger.latency_ns / 1e9, 0)
    room: list[int] = []
    if budget.tokens is not None:
        left = budget.tokens - ledger.tokens - tokens_in
        if left < (cap or 1):
            return _refused("tokens", budget.tokens, ledger.tokens, tokens_in + (cap or 1))
        room.append(left)
    if budget.cost_usd_micros is not None:
        if price is None:
            why = "the price of the model is unknown: give it in the backend's `prices`, or leave the cost unlimited"
            return Refused("cost_usd_micros", budget.cost_usd_micros, ledger.cost_usd_micros, None, why)
        left = budget.cost_usd_micros - ledger.cost_usd_micros
        if price.of(tokens_in, cap or 1) > left:
            return _refused(
                "cost_usd_micros", budget.cost_usd_micros, ledger.cost_usd_micros, price.of(tokens_in, cap or 1)
            )
        if price.output > 0:
            room.append((left * 1_000_000 - price.input * tokens_in) // price.output)
    options = dict(query.options)
    if cap is None and room:
        cap = options["max_tokens"] = min(room)
    if left_s is not None:
        given = options.get("timeout")
        options["timeout"] = min(left_s, given) if isinstance(given, int | float) else left_s
    return Granted(
        replace(query, options=options),
        None if cap is None else tokens_in + cap,
        None if cap is None or price is None else price.of(tokens_in, cap),
    )


def prompt_tokens(query: Query, backend: Backend, tokens_per_byte: float) -> int:
    """Return the most tokens that the prompt can have."""
    if isinstance(backend, Counting):
        return backend.count_tokens(query)
    size = len(query.prompt.encode("utf-8", "replace")) + len((query.system or "").encode("utf-8", "replace"))
    return math.ceil(size * tokens_per_byte) + _OVERHEAD


def _refused(resource: str, limit: float, spent: float, needed: float) -> Refused:
    why = f"{_amount(spent, resource)} of {_amount(limit, resource)} are spent, and this call may take {_amount(needed, resource)}"
    return Refused(resource, limit, spent, needed, why)


def _amount(value: float, resource: str) -> str:
    if resource == "cost_usd_micros":
        return f"{value / 1e6:.6f} USD"
    return f"{value:g} s" if resource == "seconds" else f"{value:,.0f} {resource}"


def _known(value: int | None, otherwise: int | None) -> int:
    return value if value is not None else (otherwise or 0)
