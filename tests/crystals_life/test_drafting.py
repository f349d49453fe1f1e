"""What a model is shown and what is read from its reply; what was asked is counted, whatever order it is read in."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.cli.crystal_drafter import BackendDrafter
from morphogen.consumers.crystallizer.drafting import (
    Question,
    Spending,
    asked,
    called_in,
    chosen,
    question,
    source_in,
)
from morphogen.consumers.crystallizer.errors import Busy, DraftInterrupted, DraftOverBudget, DraftUnanswered, NoDraft
from morphogen.kernels.sandbox import check
from morphogen.producers.executions import Price, Prices
from morphogen.producers.loops.llm import BackendError, Query
from morphogen.producers.loops.llm.backend import Reply as Said
from morphogen.producers.loops.llm.backend import Suspend
from morphogen.schemas import Event, LlmQueried, MorphogenError
from morphogen.schemas.crystals import CrystalAsked

from .kit import FENCED, GOOD, TEMPLATE, Drafting, trace


def made(number: int = 0) -> Question:
    return question("a-1", number, TEMPLATE, [trace(at) for at in range(9)], {"shop.price": "read"})


def test_a_model_is_shown_the_task_the_executions_the_names_and_the_grammar() -> None:
    shown = made()
    for part in (
        TEMPLATE,
        "Parameters: count: int, item: str",
        "Output: dict[str, int | str]",
        "- shop.price (read)",
        "shop.price(**{'item': 'screw'})",
        "'cents': 15",
        "Execution 6",
    ):
        assert part in shown.prompt
    assert "Execution 7" not in shown.prompt
    assert "  math: " in shown.system
    assert made() == shown
    mended = question(
        "a-1", 1, TEMPLATE, [trace(0)], {}, before="def run():\n    return 1\n", fault="replay: 1 is not 2"
    )
    assert "It was refused: replay: 1 is not 2" in mended.prompt
    assert mended.sha256 != shown.sha256


def test_executions_of_each_course_are_shown_first_and_long_values_are_cut() -> None:
    many = [trace(at) for at in range(30)]
    odd = trace(30, steps=())
    assert odd in chosen([*many, odd])
    assert chosen([*many, odd]) == chosen([odd, *reversed(many)])
    long = question("a", 0, TEMPLATE, [trace(0, output="x" * 100_000)] * 3, {})
    assert len(long.prompt) < 20_000
    assert "more characters" in long.prompt


def test_the_text_is_found_in_a_reply_that_talks() -> None:
    assert source_in(GOOD) == GOOD
    assert source_in(FENCED.format(GOOD)) == GOOD
    assert source_in(FENCED.format("print(1)") + FENCED.format(GOOD)) == GOOD
    assert source_in("```py\n" + GOOD.replace("\n", "\r\n")) == GOOD
    check(source_in(FENCED.format(GOOD)), entry="run", tools=["shop.price"])
    with pytest.raises(NoDraft):
        source_in("I cannot do that.")
    assert called_in(GOOD, ["shop.price", "shop.pric", "files.read_text"]) == ["shop.price"]
    assert called_in("def run(:", ["shop.price"]) == []


@given(st.text(max_size=400))
def test_any_reply_is_a_text_or_a_refusal(text: str) -> None:
    with contextlib.suppress(NoDraft):
        assert "def run" in source_in(text)
    called_in(text, ["a.b"])


class Log:
    """A log in memory: events under names, each once."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}

    def write(self, event: Event, name: str) -> bool:
        return self.events.setdefault(name, event) is event

    def past(self) -> Spending:
        past = Spending()
        for event in self.events.values():
            past.seen(event, 7)
        return past

    def ask(self, drafter: Drafting, left: int | None = None) -> LlmQueried:
        return asked(made(), drafter, past=self.past(), left_microusd=left, record=self.write)


def test_a_reply_in_the_log_is_used_and_not_asked_for_again() -> None:
    log, listed = Log(), Drafting(GOOD, "another")
    first = log.ask(listed)
    assert first.reply == GOOD
    assert log.ask(listed) == first
    assert len(listed.asked) == 1
    assert log.past().attempt("a-1") == 1000
    assert log.past().since(7) == 1000
    assert log.past().since(8) == 0


def test_a_backend_that_failed_for_nothing_is_asked_again_and_one_that_may_have_cost_is_not() -> None:
    free = MorphogenError("no connection")
    free.may_cost = False  # type: ignore[attr-defined]
    log, failing = Log(), _Failing(free)
    for _ in range(3):
        with pytest.raises(DraftUnanswered, match="no connection"):
            log.ask(failing, 10_000)
    assert log.past().since(0) == 0
    with pytest.raises(DraftUnanswered):
        log.ask(_Failing(MorphogenError("it broke off")), 10_000)
    assert log.past().since(0) == 5000
    with pytest.raises(DraftInterrupted, match="up to 5000 micro-dollars"):
        log.ask(Drafting(GOOD), 10_000)


def test_of_two_that_ask_at_the_same_moment_one_asks() -> None:
    log, listed = Log(), Drafting(GOOD, GOOD)
    late = log.past()  # has read the log before the other asks
    log.ask(listed)
    with pytest.raises(Busy):
        asked(made(), listed, past=late, left_microusd=None, record=log.write)
    assert len(listed.asked) == 1


def test_a_cost_that_nobody_knows_counts_as_the_most_that_it_can_be() -> None:
    log = Log()
    log.ask(Drafting(GOOD, cost=None), 5000)
    assert log.past().attempt("a-1") == 5000
    assert log.past().told("a-1") is None
    other = Log()
    with pytest.raises(DraftOverBudget):
        other.ask(Drafting(GOOD, worst=5001), 5000)
    assert other.events == {}


@given(st.permutations(range(6)), st.lists(st.sampled_from(["free", "paid", "reply"]), max_size=3))
def test_spending_is_the_same_in_whatever_order_it_is_read(order: list[int], ends: list[str]) -> None:
    events: list[Event] = []
    for end in ends:
        events.append(CrystalAsked(attempt="a", number=0, prompt_sha256="x", reserved_microusd=10))
        said: dict[str, Any] = {
            "step": "crystal/a",
            "backend": "b",
            "prompt_sha256": "x",
            "prompt": "",
            "prompt_bytes": 0,
        }
        if end != "paid":
            events.append(
                LlmQueried(**said, reply="r" if end == "reply" else None, cost_usd_micros=4 if end == "reply" else 0)
            )
    one, other = Spending(), Spending()
    for event in events:
        one.seen(event, 1)
    for at in order:
        if at < len(events):
            other.seen(events[at], 1)
    assert one == other
    key = ("a", 0)
    assert one.of(key) == (4 if "reply" in ends else 10 if "paid" in ends else 0)


class _Failing(Drafting):
    def __init__(self, error: MorphogenError) -> None:
        super().__init__()
        self.error = error

    def ask(self, question: Question) -> Any:
        raise self.error


class _Backend:
    name = "fake"

    def __init__(self, said: Said | Suspend) -> None:
        self.said = said
        self.queries: list[Query] = []

    def ask(self, query: Query) -> Said | Suspend:
        self.queries.append(query)
        return self.said


def test_a_backend_costs_what_it_says_else_what_is_configured_else_nobody_knows() -> None:
    priced = Prices({"m": Price(1_000_000, 2_000_000)})
    backend = _Backend(Said("text", tokens_in=3, tokens_out=5, model="m"))
    drafter = BackendDrafter(backend, priced, model="m", max_tokens=100)
    worst = drafter.worst(made())
    assert worst is not None
    assert worst > len(made().prompt) + 200
    assert drafter.ask(made()).cost_microusd == 3 + 10
    assert backend.queries[-1].options["max_tokens"] == 100
    nobody = BackendDrafter(backend, Prices(), model="m")
    assert nobody.worst(made()) is None
    assert nobody.ask(made()).cost_microusd is None
    told = BackendDrafter(_Backend(Said("text", cost_usd_micros=9)), priced, model="m")
    assert told.ask(made()).cost_microusd == 9
    with pytest.raises(BackendError) as waits:
        BackendDrafter(_Backend(Suspend("later")), priced).ask(made())
    assert not waits.value.may_cost
