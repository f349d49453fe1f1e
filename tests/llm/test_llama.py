"""A real GGUF model in this process."""

from pathlib import Path
from typing import Any

import pytest

from morphogen.producers.loops.llm import BackendError, Query, answer_type, backend
from morphogen.producers.loops.llm.llama import LlamaBackend, LlamaOptions
from morphogen.schemas.knowledge.tree import EnumType, FieldDecl, ListType, NamedType

FIELDS = {
    "Verdict": (
        FieldDecl("score", NamedType("float")),
        FieldDecl("verdict", EnumType(("good", "bad"))),
        FieldDecl("where", NamedType("Place")),
        FieldDecl("flags", ListType(NamedType("boolean"))),
    ),
    "Place": (FieldDecl("known", NamedType("boolean")),),
}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LlamaBackend:
    return LlamaBackend(LlamaOptions(model=str(tiny_model), context=1024, max_tokens=32, threads=1))


def test_the_same_question_has_the_same_answer_and_its_tokens_are_known(model: LlamaBackend) -> None:
    first, second = (model.ask(Query("What now?", "Be brief.")) for _ in range(2))

    assert first.text
    assert first.text == second.text
    assert (first.tokens_out, first.cost_usd_micros, first.model) == (32, 0, "tiny.gguf")


def test_another_seed_gives_another_answer_where_chance_is_asked_for(model: LlamaBackend) -> None:
    texts = {model.ask(Query("What now?", options={"temperature": 1.5, "seed": seed})).text for seed in range(4)}
    again = model.ask(Query("What now?", options={"temperature": 1.5, "seed": 2})).text

    assert len(texts) == 4
    assert again in texts


def test_a_declared_type_is_a_grammar_that_even_a_babbler_keeps_to(model: LlamaBackend) -> None:
    form = answer_type("Verdict", FIELDS)

    for seed in range(5):
        options = {"temperature": 1.0, "seed": seed, "max_tokens": 400}
        reply = model.ask(Query("Judge.", schema=form.schema, options=options))
        value, fault = form.read(reply.text)

        assert reply.finish == "length" or fault is None or "score must be a number" in fault  # 1e999 is beyond floats
        assert value is None or set(value) <= {"score", "verdict", "where", "flags"}


def test_the_tokens_of_a_prompt_are_counted_before_it_is_asked_and_never_too_few(model: LlamaBackend) -> None:
    query = Query("Was ist das für ein Ding?", "Sei knapp.")

    reply = model.ask(query)

    assert reply.tokens_in is not None
    assert model.count_tokens(query) >= reply.tokens_in


def test_a_prompt_beyond_the_context_is_a_clear_error(model: LlamaBackend) -> None:
    with pytest.raises(BackendError, match="exceed context window"):
        model.ask(Query("x" * 3000))


def test_a_step_that_asks_for_another_model_is_told_so(model: LlamaBackend) -> None:
    with pytest.raises(BackendError, match=r"holds tiny\.gguf, the step asks for model 'gpt'"):
        model.ask(Query("x", options={"model": "gpt"}))


def test_a_file_that_is_missing_or_no_model_is_told_with_its_path(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(BackendError, match=r"no GGUF file at .*nothing\.gguf"):
        backend("llama", {"model": str(tmp_path / "nothing.gguf")})
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(tiny_model.read_bytes()[:5000])
    made: Any = backend("llama", {"model": str(broken)})

    with pytest.raises(BackendError, match=r"broken\.gguf cannot be loaded"):
        made.ask(Query("x"))
