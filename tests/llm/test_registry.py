"""Backends by name, their options, and those of other packages."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from morphogen.producers.loops.llm import Backend, BackendError, Query, Reply, Suspend, backend, backend_names
from morphogen.producers.loops.llm.budget import Budget, Granted, Ledger, reserve


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(BackendError, match="no backend 'gpt': known are suspend, script, replay, openai, llama"):
        backend("gpt")


def test_an_unknown_option_is_told_with_the_known_ones_and_never_with_its_value() -> None:
    with pytest.raises(
        BackendError, match=r"unknown field `api_key`.*its options are base_url, model, api_key_env"
    ) as caught:
        backend("openai", {"base_url": "http://h/v1", "model": "m", "api_key": "sk-1"})
    assert "sk-1" not in str(caught.value)


def test_options_of_a_command_line_are_texts_and_become_what_they_should_be() -> None:
    made = backend("openai", {"base_url": "http://h/v1", "model": "m", "timeout": "2.5", "retries": "1"})

    assert made.name == "openai"
    with pytest.raises(BackendError, match=r"Expected `float`, got `str` - at `\$.timeout`"):
        backend("openai", {"base_url": "http://h/v1", "model": "m", "timeout": "soon"})


def test_suspend_waits_for_an_answer_with_its_reason() -> None:
    assert backend("suspend").ask(Query("x")) == Suspend("waiting for an answer")
    assert backend("suspend", {"reason": "ask Ann"}).ask(Query("x")) == Suspend("ask Ann")


def test_what_a_person_answers_costs_nothing_and_fits_every_budget() -> None:
    granted = reserve(Query("x"), backend("suspend"), Budget(cost_usd_micros=0), Ledger())

    assert isinstance(granted, Granted)


def test_replay_without_a_bus_says_what_it_needs() -> None:
    with pytest.raises(BackendError, match="needs a bus"):
        backend("replay", {"run": "r"})


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package of somebody else that brings backends by entry points."""
    (tmp_path / "shouting.py").write_text(
        "from morphogen.producers.loops.llm import Reply\n"
        "class Shouting:\n"
        "    name = 'shouting'\n"
        "    def __init__(self, options): self.end = options['end']\n"
        "    def ask(self, query): return Reply(query.prompt.upper() + self.end, model='shouting')\n"
        "class Mute:\n"
        "    def __init__(self, options): pass\n"
    )
    info = tmp_path / "shouting-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[morphogen.backends]\nshouting = shouting:Shouting\nmute = shouting:Mute\ngone = nowhere:Gone\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("shouting", None)


@pytest.mark.usefixtures("foreign")
def test_a_backend_of_another_package_is_found_by_its_entry_point() -> None:
    made = backend("shouting", {"end": "!"})

    assert isinstance(made, Backend)
    assert made.ask(Query("hello")) == Reply("HELLO!", model="shouting")
    assert set(backend_names()) >= {"suspend", "shouting", "mute"}


@pytest.mark.usefixtures("foreign")
def test_a_foreign_backend_that_cannot_be_made_is_told_in_one_line() -> None:
    with pytest.raises(BackendError, match=r"'mute' .* has no name and ask"):
        backend("mute")
    with pytest.raises(BackendError, match=r"'gone' .* cannot be made: No module named 'nowhere'"):
        backend("gone")
    with pytest.raises(BackendError, match=r"'shouting' .* cannot be made: 'end'"):
        backend("shouting")


@pytest.mark.parametrize(("package", "extra"), [("httpx", "loops"), ("llama_cpp", "llama")])
def test_a_missing_package_is_told_with_the_extra_that_brings_it(
    package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    file = tmp_path / "m.gguf"
    file.write_bytes(b"")

    with pytest.raises(BackendError, match=rf"pip install 'morphogen\[{extra}\]'"):
        if package == "httpx":
            backend("openai", {"base_url": "http://h/v1", "model": "m"})
        else:
            backend("llama", {"model": str(file)}).ask(Query("x"))
