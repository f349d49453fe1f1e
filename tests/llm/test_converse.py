"""A conversation: every call recorded, wrong answers sent back, taken up again from what was recorded."""

from collections.abc import Callable
from typing import Any

import pytest

from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.producers.loops.llm import (
    Answered,
    AnswerError,
    Backend,
    BackendError,
    Budget,
    BudgetExceeded,
    Ledger,
    NoReply,
    Query,
    Reply,
    Request,
    Suspend,
    Waiting,
    backend,
    converse,
    ledger_of,
    request,
)
from morphogen.producers.loops.llm.budget import Price
from morphogen.schemas import Event, decode_event
from morphogen.schemas.knowledge.tree import EnumType, FieldDecl, NamedType
from morphogen.schemas.llm import LlmBudgetExceeded, LlmQueried

DECLARED = {"V": (FieldDecl("verdict", EnumType(("good", "bad"))), FieldDecl("score", NamedType("float")))}
GOOD, BAD = '{"verdict": "good", "score": 1}', '{"verdict": "ok", "score": 1}'


class Listed:
    """Gives the replies of a list, in order, and remembers what it was asked."""

    name = "listed"

    def __init__(self, *replies: Reply | Suspend | Exception | str) -> None:
        self.replies = list(replies)
        self.asked: list[Query] = []

    def price(self, query: Query) -> Price:
        return Price(0, 0)

    def ask(self, query: Query) -> Reply | Suspend:
        self.asked.append(query)
        given = self.replies.pop(0)
        if isinstance(given, Exception):
            raise given
        return Reply(given, 10, 2, 3, "listed-1", 5) if isinstance(given, str) else given


class Log:
    """What was recorded, through the bytes of the log and back."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, event: Event) -> None:
        read = decode_event(event.type, event.version, event.encode())
        assert isinstance(read, Event)
        self.events.append(read)

    @property
    def queried(self) -> list[LlmQueried]:
        return [event for event in self.events if isinstance(event, LlmQueried)]


@pytest.fixture
def log() -> Log:
    return Log()


def judge(**arguments: Any) -> Request:
    return request({"prompt": "Judge.", "returns": "V", **arguments}, step="loop.judge", declared=DECLARED)


def test_a_text_is_answered_with_a_text_and_recorded_with_all_it_took(log: Log) -> None:
    made = request({"prompt": "Hi", "role": "Be kind.", "temperature": 0.5}, step="loop.ask")

    outcome = converse(made, Listed("Hello"), record=log.record)

    assert isinstance(outcome, Answered)
    assert (outcome.value, outcome.text, outcome.attempts) == ("Hello", "Hello", 1)
    assert log.queried == [
        LlmQueried(
            step="loop.ask",
            backend="listed",
            model="listed-1",
            prompt_sha256=made.query.sha256,
            prompt="Hi",
            prompt_bytes=2,
            system="Be kind.",
            options={"temperature": 0.5},
            reply="Hello",
            tokens_in=10,
            tokens_out=2,
            cost_usd_micros=3,
            latency_ns=5,
        )
    ]
    assert outcome.ledger == ledger_of(log.queried)


def test_a_wrong_answer_is_sent_back_with_its_faults_until_it_fits(log: Log) -> None:
    made = Listed("no idea", BAD, GOOD)

    outcome = converse(judge(), made, record=log.record)

    assert isinstance(outcome, Answered)
    assert (outcome.value, outcome.attempts) == ({"verdict": "good", "score": 1.0}, 3)
    assert [event.fits for event in log.queried] == [False, False, True]
    assert log.queried[1].error == '$.verdict must be one of "good", "bad", got "ok"'
    assert '$.verdict must be one of "good", "bad", got "ok"' in made.asked[2].prompt
    assert BAD in made.asked[2].prompt
    assert "no idea" not in made.asked[2].prompt
    assert [query.attempt for query in made.asked] == [0, 1, 2]
    assert len({query.sha256 for query in made.asked}) == 3


def test_repairs_come_to_an_end_with_a_clear_error(log: Log) -> None:
    with pytest.raises(AnswerError, match=r"step loop.judge: 2 answers did not fit V; the last one: \$.verdict must"):
        converse(judge(repairs=1), Listed(BAD, BAD, GOOD), record=log.record)
    assert len(log.queried) == 2
    with pytest.raises(AnswerError, match="the answer did not fit V"):
        converse(judge(repairs=0), Listed(BAD), record=log.record)


def test_an_answer_that_was_cut_off_is_told_so(log: Log) -> None:
    made = Listed(Reply('{"verdict": "go', finish="length"), GOOD)

    converse(judge(), made, record=log.record)

    assert "it was cut off at its largest length" in made.asked[1].prompt


@pytest.mark.parametrize("killed_after", [0, 1, 2])
def test_a_conversation_that_was_killed_goes_on_without_paying_twice(log: Log, killed_after: int) -> None:
    whole = Log()
    expected = converse(judge(), Listed(BAD, BAD, GOOD), record=whole.record)
    past = whole.queried[:killed_after]
    rest = Listed(*[BAD, BAD, GOOD][killed_after:])
    made = request({"prompt": "Judge.", "returns": "V"}, step="loop.judge", declared=DECLARED, ledger=ledger_of(past))

    outcome = converse(made, rest, record=log.record, past=past)

    assert outcome == expected
    assert past + log.queried == whole.queried
    assert len(rest.asked) == 3 - killed_after


def test_what_was_asked_before_counts_only_for_the_same_question(log: Log) -> None:
    converse(judge(), Listed(GOOD), record=log.record)
    other = Listed('{"verdict": "bad", "score": 0}')

    outcome = converse(judge(prompt="Judge again."), other, record=log.record, past=log.queried[:1])

    assert isinstance(outcome, Answered)
    assert outcome.value["verdict"] == "bad"
    assert len(other.asked) == 1


def test_a_suspended_question_waits_and_takes_answers_from_outside_through_the_same_checks(log: Log) -> None:
    asking = backend("suspend")

    first = converse(judge(), asking, record=log.record)
    assert isinstance(first, Waiting)
    assert first.query.prompt == "Judge."
    assert log.events == []

    second = converse(judge(), asking, record=log.record, answers=["good, I think"])
    assert isinstance(second, Waiting)
    assert "the last answer did not fit: the answer holds no JSON object" in second.reason
    assert "good, I think" in second.query.prompt
    assert [(event.backend, event.fits) for event in log.queried] == [("answer", False)]

    answers = ["good, I think", GOOD]
    third = converse(judge(), asking, record=log.record, past=log.queried, answers=answers)
    assert isinstance(third, Answered)
    assert third.value["verdict"] == "good"
    assert [event.fits for event in log.queried] == [False, True]


def test_a_failed_call_is_recorded_with_its_error_and_what_it_may_have_cost(log: Log) -> None:
    budget = Budget(tokens=500)
    broke = BackendError("the connection broke", may_cost=True)
    with pytest.raises(BackendError, match="the connection broke"):
        converse(judge(), Listed(broke), record=log.record, budget=budget)
    with pytest.raises(BackendError, match="cannot connect"):
        converse(judge(), Listed(BackendError("cannot connect")), record=log.record, budget=budget)
    with pytest.raises(BackendError):
        converse(judge(), Listed(NoReply("none", "a")), record=log.record, budget=budget)  # no call was made

    broken, refused = log.queried
    assert (broken.reply, broken.error, broken.reserved_tokens) == (None, "the connection broke", 500)
    assert (refused.error, refused.reserved_tokens) == ("cannot connect", None)
    assert ledger_of(log.queried).tokens == 500


def test_a_breach_fails_or_suspends_as_chosen_and_is_in_the_log_before_money_is_spent(log: Log) -> None:
    made = Listed(BAD, GOOD)
    with pytest.raises(
        BudgetExceeded, match=r"step loop.judge: budget of calls for models: 1 calls of 1 calls are spent"
    ):
        converse(judge(), made, record=log.record, budget=Budget(calls=1))
    assert len(made.asked) == 1
    assert isinstance(log.events[-1], LlmBudgetExceeded)
    assert (log.events[-1].resource, log.events[-1].action) == ("calls", "fail")

    waiting = converse(judge(), Listed(), record=log.record, budget=Budget(calls=0, on_breach="suspend"))
    assert isinstance(waiting, Waiting)
    assert "budget of calls" in waiting.reason
    answered = converse(
        judge(), Listed(), record=log.record, budget=Budget(calls=0, on_breach="suspend"), answers=[GOOD]
    )
    assert isinstance(answered, Answered)


def test_a_reply_too_long_for_the_log_is_refused(log: Log) -> None:
    with pytest.raises(BackendError, match="longer than 256 KiB"):
        converse(judge(), Listed("x" * 300_000), record=log.record)
    assert log.queried[0].reply is None


def test_an_answer_too_long_for_the_log_is_passed_over_and_the_next_one_counts(log: Log) -> None:
    waiting = converse(judge(), backend("suspend"), record=log.record, answers=["x" * 300_000])
    assert isinstance(waiting, Waiting)
    assert "an answer of more than 256 KiB was passed over" in waiting.reason

    answered = converse(judge(), backend("suspend"), record=log.record, answers=["x" * 300_000, GOOD])
    assert isinstance(answered, Answered)
    assert len(log.queried) == 1


def test_a_huge_prompt_is_kept_by_its_head_its_size_and_its_hash(log: Log) -> None:
    made = request({"prompt": "ä" * 100_000}, step="s")

    converse(made, Listed("fine"), record=log.record)

    (event,) = log.queried
    assert (event.prompt_bytes, len(event.prompt.encode())) == (200_000, 64 * 1024)
    assert event.prompt_sha256 == made.query.sha256


def test_the_largest_conversation_there_can_be_fits_into_one_frame(log: Log) -> None:
    wide = {"type": "object", "properties": {f"field {number}": {"type": "string"} for number in range(5000)}}
    made = request({"prompt": "p" * 10**6, "role": "r" * 10**6, "schema": wide}, step="s")

    converse(made, Listed("{}" + " " * 262_000), record=log.record)

    assert len(log.queried[0].encode()) < 400 * 1024


def ask_all(made: Backend, record: Callable[[Event], None]) -> list[object]:
    """Ask the same thing twice and another thing once, as a run does."""
    ledger, answers = Ledger(), []
    for prompt in ("dice", "dice", "Judge."):
        arguments = {"prompt": prompt} | ({"returns": "V"} if prompt == "Judge." else {})
        outcome = converse(request(arguments, step="s", declared=DECLARED, ledger=ledger), made, record=record)
        assert isinstance(outcome, Answered)
        ledger = outcome.ledger
        answers.append(outcome.value)
    return answers


def test_a_run_is_replayed_from_its_log_repairs_and_all(
    settings: Settings, log: Log, trimmed: Callable[[Bus], None]
) -> None:
    with Bus.open(settings) as bus:

        def record(event: Event) -> None:
            log.record(event)
            bus.emit(event, run="first", msg_id=f"m{len(log.events)}")

        first = ask_all(Listed("1", "6", BAD, GOOD), record)
        made = backend("replay", {"run": "first"}, bus=bus)
        again = Log()

        assert ask_all(made, again.record) == first == ["1", "6", {"verdict": "good", "score": 1.0}]
        assert [event.reply for event in again.queried] == ["1", "6", BAD, GOOD]
        assert {event.cost_usd_micros for event in again.queried} == {0}
        assert [event.tokens_in for event in again.queried] == [10] * 4
        with pytest.raises(NoReply, match="run 'first' answered it 2 times"):
            made.ask(Query("dice", occurrence=2))
        with pytest.raises(NoReply, match="was never asked it"):
            made.ask(Query("cards"))
        waiting = backend("replay", {"run": "first", "on_miss": "suspend"}, bus=bus)
        assert isinstance(waiting.ask(Query("cards")), Suspend)
        with pytest.raises(BackendError, match="holds no reply of run 'nobody'"):
            backend("replay", {"run": "nobody"}, bus=bus)
        trimmed(bus)
        assert ask_all(backend("replay", {"run": "first"}, bus=bus), Log().record) == first


def test_a_conversation_with_a_real_model_ends_in_a_checked_value(log: Log, tiny_model: Any) -> None:
    made = backend("llama", {"model": str(tiny_model), "context": 2048, "max_tokens": 200, "threads": 1})

    outcome = converse(
        judge(), made, record=log.record, budget=Budget(tokens=20_000, cost_usd_micros=0)
    )  # a model of one's own costs nothing

    assert isinstance(outcome, Answered)
    assert outcome.value["verdict"] in {"good", "bad"}
    assert log.queried[0].reserved_tokens is not None
    assert (log.queried[0].tokens_in or 0) + (log.queried[0].tokens_out or 0) <= log.queried[0].reserved_tokens
