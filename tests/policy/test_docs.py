"""The page on policies says what is so: its programs run, its limits and policies are those of the code."""

import re
from pathlib import Path
from typing import Any

import pytest

from morphogen.consumers.policy import Limits, names

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()


@pytest.mark.parametrize("source", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_a_program_of_the_page_runs(source: str) -> None:
    exec(compile(source, "policies.md", "exec"), {"__name__": "policies"})


def test_the_page_names_every_policy_and_every_limit_with_its_default() -> None:
    rows = dict(re.findall(r"^\| (`.*?) \| (.*?) \|", PAGE, re.MULTILINE))
    assert {f"`{name}`" for name in names()} <= set(rows)
    shown: dict[str, str] = {}
    for left, right in rows.items():
        found = re.findall(r"`(\w+)`", left)
        values = right.split(", ") if "," in right and len(found) == len(right.split(", ")) else [right] * len(found)
        shown.update(zip(found, values, strict=True))
    default: Any = Limits()
    for name in Limits.__struct_fields__:
        if name in {"ramp", "ramp_steps"}:
            continue
        value = getattr(default, name)
        assert shown[name] == ("none" if value in {None, ()} else str(value)), name


def test_the_command_of_the_page_is_a_command() -> None:
    from typer.main import get_command

    from morphogen.cli import verbs
    from morphogen.cli.app import app

    assert verbs.__all__ == []
    tree: Any = get_command(app)
    (line,) = re.findall(r"^\$ morphogen (.*)$", PAGE, re.MULTILINE)
    verb, sub, option, _ = line.split()
    assert option in {name for one in tree.commands[verb].commands[sub].params for name in one.opts}
