"""The page on facts says what is so: its modules load, its questions are answered, its program runs."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from morphogen.consumers.projections import Store

from ..projections.conftest import Log
from .modules import loaded, perf

PAGE = (Path(__file__).parents[2] / "docs" / "knowledge" / "facts.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_the_module_of_the_page_becomes_tables_that_its_questions_find(
    log: Log, open_store: Callable[..., Store], catch_up: Callable[..., int], ask: Callable[..., list[Any]]
) -> None:
    (module,) = blocks("knowledge")
    log.write(loaded(module))
    log.write(perf(9.0, text=module), perf(12.0, text=module))
    store = open_store()
    catch_up(store, log)

    counted, unequal, now = (ask(store, question) for question in blocks("sql"))

    assert counted == [("a", 1)]
    assert unequal == [(0,)]
    assert now == []
    for name in re.findall(r"`((?:trace|fact|facts|rules|knowledge)_[a-z_]+)`", PAGE):
        if name.count("_") > 1 or name in {
            "facts_now",
            "rules_fired",
            "knowledge_facts",
            "knowledge_rules",
            "trace_rejected",
        }:
            assert name in store.views(), name


def test_the_program_of_the_page_runs() -> None:
    for source in blocks("python"):
        exec(compile(source, "facts.md", "exec"), {})


def test_the_commands_of_the_page_are_commands() -> None:
    from typer.main import get_command

    from morphogen.cli import verbs
    from morphogen.cli.app import app

    assert verbs.__all__ == []
    tree: Any = get_command(app)
    for line in re.findall(r"^\$ morphogen (.*?)(?:#.*)?$", PAGE, re.MULTILINE):
        verb, *rest = line.split()
        command = tree.commands[verb]
        if hasattr(command, "commands"):
            command = command.commands[rest[0]]
        options = {name for one in command.params for name in one.opts}
        assert {word for word in rest if word.startswith("--")} <= options
