"""Any OpenAI-compatible endpoint: a real llama.cpp server, and one that does everything wrong."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from morphogen.producers.loops.llm import BackendError, LlmError, Query
from morphogen.producers.loops.llm.budget import Price
from morphogen.producers.loops.llm.openai import OpenAIBackend, _retry_after
from morphogen.producers.loops.llm.openai_options import OpenAIOptions
from morphogen.producers.loops.llm.structured import AnswerType

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"good": {"type": "boolean"}, "verdict": {"enum": ["yes", "no"]}},
    "required": ["good", "verdict"],
    "additionalProperties": False,
}


class Made:
    """A backend whose sleeps are counted and not slept."""

    def __init__(self, url: str, environ: dict[str, str] | None = None, **options: Any) -> None:
        self.slept: list[float] = []
        self.backend = OpenAIBackend(
            OpenAIOptions(base_url=url, **{"model": "m", "retries": 3, "timeout": 20.0, **options}),
            sleep=self.slept.append,
            chance=lambda: 0.0,
            environ=environ or {},
        )

    def ask(self, prompt: str = "hello", **query: Any) -> Any:
        return self.backend.ask(Query(prompt, **query))


def test_a_real_server_answers_the_same_question_the_same_way_and_tells_its_tokens(llama_server: str) -> None:
    backend = OpenAIBackend(
        OpenAIOptions(base_url=llama_server, model="tiny", temperature=0.0, seed=3, max_tokens=24), environ={}
    )

    first = backend.ask(Query("What now?", "You are brief."))
    second = backend.ask(Query("What now?", "You are brief."))

    assert first.text
    assert first.text == second.text
    assert (first.tokens_out, first.finish) == (24, "length")
    assert first.tokens_in is not None
    assert first.tokens_in > 20
    assert first.latency_ns > 0
    assert first.cost_usd_micros is None
    backend.close()


def test_a_real_server_that_refuses_json_schema_is_asked_in_its_own_way_and_keeps_to_the_schema(
    llama_server: str,
) -> None:
    backend = OpenAIBackend(OpenAIOptions(base_url=llama_server, model="tiny", max_tokens=200), environ={})

    for seed in range(3):
        reply = backend.ask(Query("Judge.", schema=SCHEMA, options={"seed": seed, "temperature": 1.0}))
        value, fault = AnswerType("answer", SCHEMA).read(reply.text)

        assert fault is None
        assert value["verdict"] in {"yes", "no"}
    assert backend._format == "json_object"
    backend.close()


def test_an_error_of_a_real_server_is_told_in_its_words(llama_server: str) -> None:
    backend = OpenAIBackend(OpenAIOptions(base_url=llama_server, model="tiny", retries=0), environ={})

    with pytest.raises(BackendError, match="context"):
        backend.ask(Query("x" * 3000))
    backend.close()


def test_a_reply_carries_model_usage_and_cost(endpoint: Any, answering: Callable[..., Any]) -> None:
    endpoint.answers = [answering("fine", prompt_tokens=1001, completion_tokens=10)]
    made = Made(endpoint.url, prices={"m": Price(150_000, 600_000)})

    reply = made.ask(system="You are terse.", options={"temperature": 0.5, "max_tokens": 9, "stop": ["\n"]})

    assert (reply.text, reply.tokens_in, reply.tokens_out, reply.model) == ("fine", 1001, 10, "served")
    assert reply.cost_usd_micros == 157  # 150.15 + 6, rounded up
    (sent,) = endpoint.requests
    assert sent["messages"] == [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "hello"},
    ]
    assert (sent["model"], sent["temperature"], sent["max_tokens"], sent["stop"]) == ("m", 0.5, 9, ["\n"])
    assert "response_format" not in sent


def test_an_unknown_price_and_unknown_usage_stay_unknown(endpoint: Any) -> None:
    reply = Made(endpoint.url).ask()

    assert (reply.tokens_in, reply.tokens_out, reply.cost_usd_micros) == (None, None, None)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again_with_growing_pauses(
    endpoint: Any, answering: Any, faulty: Any, status: int
) -> None:
    endpoint.answers = [faulty(status=status, body=b"{}"), faulty(status=status, body=b"{}"), answering("there")]
    made = Made(endpoint.url)

    reply = made.ask()

    assert (reply.text, reply.retries) == ("there", 2)
    assert made.slept == [0.5, 1.0]


def test_retry_after_is_honoured_as_seconds_and_as_a_date() -> None:
    assert _retry_after("7") == 7.0
    assert _retry_after("Sat, 21 Nov 2026 12:00:10 GMT", now=lambda: 1_795_262_405.0) == pytest.approx(5.0)
    assert [_retry_after(odd) for odd in (None, "", "soon", "-3", "nan")] == [0.0] * 5


def test_a_pause_that_the_endpoint_asks_for_is_made(endpoint: Any, answering: Any, faulty: Any) -> None:
    endpoint.answers = [faulty(status=429, headers={"retry-after": "6"}), answering("there")]
    made = Made(endpoint.url)

    made.ask()

    assert made.slept == [6.0]


def test_a_pause_longer_than_allowed_is_an_error_at_once(endpoint: Any, faulty: Any) -> None:
    endpoint.answers = [faulty(status=429, headers={"retry-after": "900"})]
    made = Made(endpoint.url)

    with pytest.raises(BackendError, match=r"status 429.*given up after one try; it asks to wait 900 s"):
        made.ask()
    assert made.slept == []


def test_retries_come_to_an_end(endpoint: Any, faulty: Any) -> None:
    endpoint.answers = [faulty(status=500, body=b'{"error": {"message": "out of memory"}}')]
    made = Made(endpoint.url)

    with pytest.raises(BackendError, match=r"status 500: out of memory; given up after 4 tries") as caught:
        made.ask()
    assert len(endpoint.requests) == 4
    assert not caught.value.may_cost


def test_a_refusal_is_not_repeated_and_says_what_to_look_at(endpoint: Any, faulty: Any) -> None:
    endpoint.answers = [faulty(status=404, body=b'{"error": {"message": "no such model"}}')]

    with pytest.raises(BackendError, match=r"status 404: no such model; is base_url right"):
        Made(endpoint.url).ask()
    assert len(endpoint.requests) == 1


def test_nobody_there_is_told_with_the_address_after_the_retries() -> None:
    made = Made("http://127.0.0.1:9/v1")

    with pytest.raises(BackendError, match=r"http://127\.0\.0\.1:9/v1: cannot connect.*4 tries") as caught:
        made.ask()
    assert len(made.slept) == 3
    assert not caught.value.may_cost


def test_a_reply_that_takes_too_long_is_given_up_and_may_have_cost(endpoint: Any, answering: Any) -> None:
    slow = answering("late")
    slow.delay = 5.0
    endpoint.answers = [slow]
    began = time.monotonic()

    with pytest.raises(BackendError, match="no whole reply in time") as caught:
        Made(endpoint.url, timeout=0.3).ask()
    assert time.monotonic() - began < 4
    assert caught.value.may_cost
    assert len(endpoint.requests) == 1


def test_a_reply_that_drips_is_given_up_too(endpoint: Any, answering: Any) -> None:
    slow = answering("late" * 50)
    slow.drip = 0.05
    endpoint.answers = [slow]

    with pytest.raises(BackendError, match="no whole reply in time"):
        Made(endpoint.url).ask(options={"timeout": 0.4})


def test_a_connection_that_breaks_in_the_reply_is_an_error_that_may_have_cost(endpoint: Any, answering: Any) -> None:
    broken = answering("half of it")
    broken.cut = True
    endpoint.answers = [broken]

    with pytest.raises(BackendError, match="the connection broke") as caught:
        Made(endpoint.url).ask()
    assert caught.value.may_cost


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>gateway</html>", "no JSON object: <html>gateway</html>"),
        (b"[1, 2]", "no JSON object"),
        (b"", "an empty body"),
        (b"\xff\xfe\x00", "no JSON object"),
        (b"[" * 50_000, "no JSON object"),
        (b"{}", "holds no message: {}"),
        (b'{"choices": []}', "holds no message"),
        (b'{"choices": [{"message": null}]}', "holds no message"),
        (b'{"choices": [{"message": {"content": null}, "finish_reason": "tool_calls"}]}', "tool_calls"),
        (b'{"choices": [{"message": {"refusal": "I will not"}}]}', "gave no text: I will not"),
    ],
)
def test_garbage_is_an_error_that_shows_it(endpoint: Any, faulty: Any, body: bytes, message: str) -> None:
    endpoint.answers = [faulty(body=body)]

    with pytest.raises(BackendError) as caught:
        Made(endpoint.url).ask()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_huge_reply_is_not_swallowed(endpoint: Any, answering: Any) -> None:
    endpoint.answers = [answering("x" * 3_000_000)]

    with pytest.raises(BackendError, match="longer than 1,000,000 bytes"):
        Made(endpoint.url, max_reply_bytes=1_000_000).ask()


def test_a_schema_is_asked_for_by_json_schema_first(endpoint: Any, answering: Any) -> None:
    endpoint.answers = [answering("{}")]

    Made(endpoint.url).ask(schema=SCHEMA)

    asked = endpoint.requests[0]["response_format"]
    assert asked == {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}


def test_an_endpoint_that_takes_no_format_at_all_is_asked_without_and_remembered(
    endpoint: Any, answering: Any, faulty: Any
) -> None:
    refusal = faulty(status=400, body=b'{"error": "unknown field response_format"}')
    endpoint.answers = [refusal, refusal, answering("{}")]
    made = Made(endpoint.url)

    made.ask(schema=SCHEMA)
    made.ask(schema=SCHEMA)

    kinds = [sent.get("response_format", {}).get("type") for sent in endpoint.requests]
    assert kinds == ["json_schema", "json_object", None, None]


def test_a_format_that_was_asked_for_by_name_is_not_given_up(endpoint: Any, faulty: Any) -> None:
    endpoint.answers = [faulty(status=400, body=b'{"error": "response_format: unsupported"}')]

    with pytest.raises(BackendError, match="response_format: unsupported"):
        Made(endpoint.url, format="json_schema").ask(schema=SCHEMA)


def test_a_bad_request_about_something_else_is_not_taken_for_a_refused_format(endpoint: Any, faulty: Any) -> None:
    endpoint.answers = [faulty(status=400, body=b'{"error": {"message": "prompt too long"}}')]

    with pytest.raises(BackendError, match="prompt too long"):
        Made(endpoint.url).ask(schema=SCHEMA)
    assert len(endpoint.requests) == 1


def test_the_key_comes_from_its_variable_and_is_never_shown(endpoint: Any, faulty: Any) -> None:
    endpoint.answers = [faulty(status=401, body=b'{"error": {"message": "wrong key sk-secret-1"}}')]
    made = Made(endpoint.url, {"THE_KEY": "sk-secret-1"}, api_key_env="THE_KEY")

    with pytest.raises(BackendError, match="wrong key \\*\\*\\*; is the key right") as caught:
        made.ask()
    assert endpoint.headers[0]["authorization"] == "Bearer sk-secret-1"
    assert "sk-secret-1" not in str(caught.value)
    assert "sk-secret-1" not in repr(vars(made.backend).get("_options"))


def test_a_missing_key_is_told_by_the_name_of_its_variable(endpoint: Any) -> None:
    with pytest.raises(BackendError, match="variable THE_KEY holds no key"):
        Made(endpoint.url, api_key_env="THE_KEY").ask()
    assert endpoint.requests == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "ftp://x/v1"}, "base_url is http"),
        ({"base_url": "http://me:pw@host/v1"}, "carries no secrets"),
        ({"base_url": "http://host/v1?key=abc"}, "carries no secrets"),
        (
            {"base_url": "http://host/v1", "headers": {"Authorization": "Bearer pw"}},
            "Authorization would stand in the log",
        ),
        ({"base_url": "http://host/v1", "headers": {"X-Auth-Token": "pw"}}, "X-Auth-Token would stand in the log"),
        ({"base_url": "http://host/v1", "extra": {"api_key": "pw"}}, "api_key would stand in the log"),
        ({"base_url": "http://host/v1", "format": "xml"}, "format is one of"),
        ({"base_url": "http://host/v1", "timeout": 0.0}, "not negative"),
    ],
)
def test_options_that_cannot_work_or_would_leak_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(LlmError, match=message) as caught:
        OpenAIBackend(OpenAIOptions(model="m", **options))
    assert "pw" not in str(caught.value)
