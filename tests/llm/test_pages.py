"""The pages on backends and on improving say what the code does."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from morphogen.producers.loops.improve.backtest import BackTest
from morphogen.producers.loops.llm import read_budget
from morphogen.producers.loops.llm.backend import Query, Reply
from morphogen.producers.loops.llm.llama import LlamaOptions
from morphogen.producers.loops.llm.openai_options import OpenAIOptions
from morphogen.producers.loops.llm.prompt import TAKES
from morphogen.producers.loops.llm.replay import ReplayOptions
from morphogen.producers.loops.llm.script import Entry, ScriptOptions, read_script
from morphogen.producers.loops.llm.suspend import SuspendOptions
from morphogen.schemas.knowledge.program import load, load_text
from morphogen.schemas.knowledge.tools import EVERY_ACTION, TOOLS

ROOT = Path(__file__).parents[2]
BACKENDS = (ROOT / "docs" / "knowledge" / "backends.md").read_text()
IMPROVING = (ROOT / "docs" / "knowledge" / "improving.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", BACKENDS, re.DOTALL)


@pytest.mark.parametrize("text", blocks("mk"))
def test_a_program_of_the_page_checks_without_a_warning(text: str) -> None:
    assert load_text(text).warnings == ()


@pytest.mark.parametrize("text", blocks("python"))
def test_a_backend_of_the_page_runs(text: str) -> None:
    exec(compile(text, "backends.md", "exec"), {"__name__": "page"})


def test_the_replies_of_the_page_are_a_script(tmp_path: Path) -> None:
    (script, _) = blocks("toml")
    path = tmp_path / "replies.toml"
    path.write_text(script)

    assert len(read_script(path)) == 2
    assert all(tomllib.loads(text) for text in blocks("toml"))


@pytest.mark.parametrize("options", [SuspendOptions, ScriptOptions, ReplayOptions, OpenAIOptions, LlamaOptions, Entry])
def test_every_option_of_a_backend_stands_in_the_page(options: type[msgspec.Struct]) -> None:
    missing = [field for field in options.__struct_fields__ if not re.search(rf"\b{field}\b", BACKENDS)]

    assert missing == []


def test_every_argument_of_a_query_is_one_that_the_checker_knows_and_stands_in_the_page() -> None:
    assert set(TOOLS["llm.query"].parameters) == set(TAKES)
    assert [name for name in TAKES if f"`{name}`" not in BACKENDS] == []
    assert not set(TAKES) & set(EVERY_ACTION)


@pytest.mark.parametrize("kind", [Query, Reply])
def test_the_fields_of_the_contract_stand_in_the_page(kind: type) -> None:
    assert [name for name in kind.__dataclass_fields__ if f"`{name}`" not in BACKENDS] == []  # type: ignore[attr-defined]


def test_every_figure_that_a_policy_may_name_stands_in_the_page() -> None:
    assert [name for name in BackTest(runs=()).figures() if f"`{name}`" not in IMPROVING] == []


def test_the_example_checks_and_its_replies_and_budget_can_be_read() -> None:
    folder = ROOT / "examples" / "knowledge"

    assert load(folder / "ask.mk").warnings == ()
    assert [entry.attempt for entry in read_script(folder / "ask.replies.toml")] == [0, 1]
    assert read_budget({"calls": 4, "tokens": 20000, "on_breach": "suspend"}).calls == 4
