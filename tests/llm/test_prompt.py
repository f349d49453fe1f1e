"""How the arguments of an `llm.query` become a prompt."""

import subprocess
import sys
from typing import Any

import pytest

from morphogen.producers.loops.llm import Guidance, Ledger, PromptError, prompt_sha256, request
from morphogen.schemas.knowledge.tree import FieldDecl, NamedType

GUIDE = Guidance(axioms=("verify first",), heuristics=("small steps",), predictions=("it works",), advice=("fuse",))


def test_the_system_text_holds_role_model_advice_and_form_and_the_user_text_context_and_question() -> None:
    made = request(
        {"role": "You are terse.", "prompt": "What now?", "context": ["log line", {"a": 1}], "returns": "T"},
        step="ask",
        guidance=GUIDE,
        declared={"T": (FieldDecl("x", NamedType("int")),)},
    )

    system = made.query.system or ""
    parts = [
        "You are terse.",
        "0. verify first",
        "0. small steps",
        "0. it works",
        "0. fuse",
        '"x": {"type": "integer"}',
    ]
    assert [system.index(part) for part in parts] == sorted(system.index(part) for part in parts)
    assert made.query.prompt == 'Context 1:\nlog line\n\nContext 2:\n{"a": 1}\n\nWhat now?'
    assert made.query.schema == made.answer.schema if made.answer else False
    assert (made.query.step, made.query.attempt, made.repairs) == ("ask", 0, 2)


def test_a_question_alone_has_no_system_text_and_named_context_keeps_its_names() -> None:
    assert request({"prompt": "Why?"}, step="s").query.system is None
    assert request({"prompt": "Why?", "context": {"trace": [1, 2]}}, step="s").query.prompt == "trace:\n[1, 2]\n\nWhy?"
    assert request({"prompt_template": "Why?", "context": "it broke"}, step="s").query.prompt.endswith("\n\nWhy?")


def test_advice_can_be_left_out() -> None:
    assert "fuse" not in (request({"prompt": "x", "advice": False}, step="s", guidance=GUIDE).query.system or "")


def test_the_same_arguments_make_the_same_hash_in_any_process() -> None:
    made = request(
        {"prompt": "Wie heißt \u2028 du?", "context": [{"b": 1, "a": [None, 1.5]}]}, step="s", guidance=GUIDE
    )
    program = (
        "from morphogen.producers.loops.llm import *\n"
        "g = Guidance(axioms=('verify first',), heuristics=('small steps',), predictions=('it works',), advice=('fuse',))\n"
        "a = {'prompt': 'Wie heißt \\u2028 du?', 'context': [{'b': 1, 'a': [None, 1.5]}]}\n"
        "print(request(a, step='other', guidance=g).query.sha256)"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert other.stdout.strip() == made.query.sha256
    assert request({"prompt": "Wie heißt du?"}, step="s").query.sha256 != made.query.sha256


def test_only_what_is_said_counts_for_the_hash_not_who_is_asked() -> None:
    one = request({"prompt": "x", "model": "a", "temperature": 1.0}, step="s").query
    two = request({"prompt": "x", "model": "b"}, step="t").query

    assert one.sha256 == two.sha256 == prompt_sha256("x")
    assert one.options == {"model": "a", "temperature": 1.0}


def test_options_of_the_call_stand_over_those_of_the_loop() -> None:
    made = request({"prompt": "x", "temperature": 0.0}, step="s", defaults={"temperature": 1.0, "seed": 4, "junk": 1})

    assert made.query.options == {"temperature": 0.0, "seed": 4}
    counted = request({"prompt": "x", "max_tokens": 600.0 / 2}, step="s").query.options["max_tokens"]
    assert (counted, type(counted)) == (300, int)


def test_a_prompt_knows_how_often_it_was_answered_before_in_its_run() -> None:
    ledger = Ledger(replies=5, answered={prompt_sha256("x"): 2})

    assert request({"prompt": "x"}, step="s", ledger=ledger).query.occurrence == 2
    assert request({"prompt": "y"}, step="s", ledger=ledger).query.occurrence == 0
    assert request({"prompt": "y"}, step="s", ledger=ledger).query.call == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"promt": "x"}, "takes no 'promt': did you mean 'prompt'"),
        ({"zzz": 1}, "takes no 'zzz': it takes prompt, prompt_template"),
        ({}, "give one of prompt and prompt_template"),
        ({"prompt": "a", "prompt_template": "b"}, "give one of"),
        ({"prompt": "  \n"}, "prompt is empty"),
        ({"prompt": 3}, "prompt is a text, got int"),
        ({"prompt": "x", "role": 1}, "role is a text, got int"),
        ({"prompt": "x", "repairs": 99}, "repairs is a number from 0 to 20"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens cannot be 0"),
        ({"prompt": "x", "max_tokens": 1.5}, "max_tokens cannot be 1.5"),
        ({"prompt": "x", "temperature": "hot"}, "temperature cannot be 'hot'"),
        ({"prompt": "x", "stop": [1]}, r"stop cannot be \[1\]"),
        ({"prompt": "x", "timeout": float("nan")}, "timeout cannot be nan"),
        ({"prompt": "x", "returns": "Nope"}, "no type or case 'Nope'"),
    ],
)
def test_a_query_that_makes_no_sense_is_told(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        request(arguments, step="s")
