"""The page on the index says what is so: its program runs, its tables are the tables, its verbs the verbs."""

import re
from pathlib import Path
from typing import Any

from morphogen.consumers.projections.builtin.kv import Kv

PAGE = (Path(__file__).parents[2] / "docs" / "kv-index.md").read_text()


def test_the_program_of_the_page_runs() -> None:
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

    exec(compile(source, "kv-index.md", "exec"), {"__name__": "page"})


def test_the_tables_of_the_page_are_the_tables() -> None:
    named = set(re.findall(r"`(kv_[a-z]+)`", PAGE))
    public = {name for name in (*Kv.tables, *Kv.views) if not name.startswith("_")}

    assert named == public - {"kv_session_events"}


def test_the_columns_that_the_page_names_are_columns() -> None:
    (row,) = re.findall(r"^\| `kv_index` \| (.*) \|$", PAGE, re.MULTILINE)
    view = Kv.views["kv_index"]

    for column in re.findall(r"`(\w+)`", row):
        assert re.search(rf"\b{column}\b", view), column


def test_the_verbs_and_options_of_the_page_are_there() -> None:
    from typer.main import get_command

    from morphogen.cli import verbs
    from morphogen.cli.app import app

    assert verbs.__all__ == []
    tree: Any = get_command(app)
    rows = re.findall(r"^\| `kv (\w+)[^`]*` \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(tree.commands["kv"].commands)
    options = {
        name
        for group in ("kv", "serve")
        for one in tree.commands[group].commands.values()
        for p in one.params
        for name in p.opts
    }
    assert set(re.findall(r"(?<![-|])--[a-z][a-z-]+", PAGE)) <= options
