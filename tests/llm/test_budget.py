"""What a run may spend, checked before it is spent."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.producers.loops.llm import Budget, Ledger, PromptError, Query, Reply, budget_of, ledger_of, read_budget
from morphogen.producers.loops.llm.budget import ANSWER, Granted, Price, Refused, reserve
from morphogen.schemas.knowledge.evaluate import Scope
from morphogen.schemas.knowledge.parse import parse
from morphogen.schemas.llm import LlmQueried


class Metered:
    """A backend with a price; it takes a token for every byte, and 64 for its template."""

    name = "metered"

    def __init__(self, price: Price | None) -> None:
        self._price = price

    def price(self, query: Query) -> Price | None:
        return self._price

    def ask(self, query: Query) -> Reply:
        return Reply("x")


def queried(**fields: Any) -> LlmQueried:
    given: dict[str, Any] = {"step": "s", "backend": "metered", "prompt_sha256": "a", "prompt": "p", "prompt_bytes": 1}
    return LlmQueried(**(given | fields))


def test_a_budget_reads_as_it_is_written_in_a_program() -> None:
    made = read_budget({"calls": 3, "tokens": 5000, "cost_usd": 0.25, "time": 90.0, "on_breach": "suspend"})

    assert made == Budget(calls=3, tokens=5000, cost_usd_micros=250_000, seconds=90.0, on_breach="suspend")


@pytest.mark.parametrize(
    ("given_map", "message"),
    [
        ({"call": 1}, "unknown field `call`; it takes calls, tokens, cost_usd"),
        ({"calls": "many"}, "Expected `int"),
        ({"cost_usd": "1"}, "amount of dollars"),
        ({"cost_usd": float("nan")}, "amount of dollars"),
        ({"tokens": -1}, "not negative"),
        ({"on_breach": "shout"}, 'is "fail" or "suspend"'),
    ],
)
def test_a_budget_that_cannot_be_meant_is_told(given_map: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError) as caught:
        read_budget(given_map)
    assert message in str(caught.value)


def test_the_ledger_counts_what_is_known_and_the_reserve_where_nothing_is() -> None:
    ledger = ledger_of(
        [
            queried(reply="a", tokens_in=10, tokens_out=5, cost_usd_micros=7, reserved_tokens=900, latency_ns=5),
            queried(reply="b", reserved_tokens=100, reserved_usd_micros=50),  # an endpoint that tells no usage
            queried(error="broke off", reserved_tokens=40, reserved_usd_micros=3),  # may have been paid for
            queried(error="connection refused"),  # was not
            queried(backend=ANSWER, reply="c", prompt_sha256="b"),  # a person's time is not metered
        ]
    )

    assert (ledger.calls, ledger.tokens, ledger.cost_usd_micros, ledger.latency_ns) == (4, 155, 60, 5)
    assert (ledger.replies, ledger.answered) == (3, {"a": 2, "b": 1})


def test_a_call_that_could_go_over_is_refused_before_it_is_made() -> None:
    query = Query("x" * 100, options={"max_tokens": 50})
    backend = Metered(Price(1_000_000, 2_000_000))  # one and two micro-dollars a token

    assert isinstance(reserve(query, backend, Budget(tokens=214), Ledger()), Granted)
    refused = reserve(query, backend, Budget(tokens=213), Ledger())
    assert isinstance(refused, Refused)
    assert (refused.resource, refused.limit, refused.spent, refused.needed) == ("tokens", 213, 0, 214)
    assert isinstance(reserve(query, backend, Budget(cost_usd_micros=264), Ledger()), Granted)
    refused = reserve(query, backend, Budget(cost_usd_micros=264), Ledger(cost_usd_micros=1))
    assert isinstance(refused, Refused)
    assert refused.why == "0.000001 USD of 0.000264 USD are spent, and this call may take 0.000264 USD"


def test_calls_and_seconds_end_too() -> None:
    query, backend = Query("x"), Metered(None)

    refused = reserve(query, backend, Budget(calls=2), Ledger(calls=2))
    assert isinstance(refused, Refused)
    assert refused.resource == "calls"
    late = reserve(query, backend, Budget(seconds=1.5), Ledger(latency_ns=1_500_000_000))
    assert isinstance(late, Refused)
    granted = reserve(query, backend, Budget(seconds=2.0), Ledger(latency_ns=500_000_000))
    assert isinstance(granted, Granted)
    assert granted.query.options["timeout"] == 1.5


def test_without_a_cap_of_its_own_a_reply_is_capped_at_what_is_left() -> None:
    backend = Metered(Price(1_000_000, 2_000_000))

    granted = reserve(Query("x" * 36), backend, Budget(tokens=1000, cost_usd_micros=300), Ledger(tokens=100))

    assert isinstance(granted, Granted)
    assert granted.query.options["max_tokens"] == 100  # (300 - 100) / 2, less than the 800 tokens that are left
    assert (granted.tokens, granted.cost_usd_micros) == (200, 300)


def test_a_cost_budget_with_an_unknown_price_refuses_rather_than_hopes() -> None:
    refused = reserve(Query("x"), Metered(None), Budget(cost_usd_micros=10**9), Ledger())

    assert isinstance(refused, Refused)
    assert refused.needed is None
    assert "price of the model is unknown" in refused.why


@given(
    prompt=st.text(max_size=60),
    price=st.builds(Price, st.integers(0, 10**7), st.integers(0, 10**7)),
    tokens=st.none() | st.integers(0, 500),
    cost=st.none() | st.integers(0, 2000),
    cap=st.none() | st.integers(1, 300),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_call_that_was_granted_never_goes_over_whatever_it_takes_within_its_caps(
    prompt: str, price: Price, tokens: int | None, cost: int | None, cap: int | None, shares: tuple[float, float]
) -> None:
    backend, budget = Metered(price), Budget(tokens=tokens, cost_usd_micros=cost)
    query = Query(prompt, options={} if cap is None else {"max_tokens": cap})

    granted = reserve(query, backend, budget, Ledger())

    if isinstance(granted, Granted) and (tokens is not None or cost is not None):
        longest = granted.query.options.get("max_tokens", 10_000)  # a reply that costs nothing may be of any length
        took_in = round(shares[0] * (len(prompt.encode("utf-8", "replace")) + 64))
        took_out = round(shares[1] * longest)
        assert tokens is None or took_in + took_out <= tokens
        assert cost is None or price.of(took_in, took_out) <= cost


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{ time: 2 min, calls: 3 }", Budget(seconds=120, calls=3)),
        ("{ time: 500 ms, on_breach: suspend }", Budget(seconds=0.5, on_breach="suspend")),
        ("{ tokens: 2 * 500, cost_usd: 0.5 }", Budget(tokens=1000, cost_usd_micros=500_000)),
    ],
)
def test_a_budget_of_a_program_may_be_in_any_unit_of_time(written: str, expected: Budget) -> None:
    (task,) = parse(f"task T {{ budget: {written} step a {{ x = 1 }} }}").module.tasks

    assert budget_of(task.properties, Scope()) == expected


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("5", "write a map"),
        ("{ time: 3 GB }", "time: "),
        ("{ tokens: 3 min }", "tokens is a plain number, got 3 min"),
        ("{ calls: other + 1 }", "other"),
    ],
)
def test_a_budget_of_a_program_that_cannot_be_meant_is_told(written: str, message: str) -> None:
    (task,) = parse(f"task T {{ budget: {written} step a {{ x = 1 }} }}").module.tasks

    with pytest.raises(PromptError, match=message):
        budget_of(task.properties, Scope())
