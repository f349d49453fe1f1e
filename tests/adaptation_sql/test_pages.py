"""The pages on backtests and reports do what they say, snippet by snippet, in their order."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest

import morphogen
from morphogen.bus.settings import Settings
from morphogen.cli.app import run as command

DOCS = Path(__file__).parents[2] / "docs"
BACKTEST, REPORT = ((DOCS / name).read_text() for name in ("backtest.md", "report.md"))


def commands(page: str) -> list[tuple[list[str], list[str]]]:
    """Return the commands of a page with the lines that follow each."""
    found: list[tuple[list[str], list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ morphogen "):
                found.append((re.sub(r"'([^']*)'", r"\1", line).split()[2:], []))
            else:
                found[-1][1].append(line)
    return found


def test_the_snippets_of_both_pages_do_what_the_pages_say(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    sources: dict[str, str] = {}
    for name, source in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", BACKTEST, re.DOTALL):
        sources[name] = source
        (tmp_path / name).write_text(source)

    exec(compile(sources["train.py"], "train.py", "exec"), {})
    capsys.readouterr()
    for arguments, expected in commands(BACKTEST):
        assert command(arguments) == 0, arguments
        out = capsys.readouterr().out.splitlines()
        for line in expected:
            assert line == "..." or line in out, f"{line!r} is not in {out}"
    exec(compile(sources["again.py"], "again.py", "exec"), {})
    assert "policy late over 3 runs, 36 decisions" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "mine")

    for arguments, expected in commands(REPORT):
        assert command(arguments) == 0, arguments
        assert capsys.readouterr().out.splitlines() == expected
    for question in re.findall(r"```sql\n(.*?)```", REPORT, re.DOTALL):
        assert len(morphogen.query(question, wait=True)) > 0, question
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", REPORT, re.MULTILINE)
    tables = [table for row in rows for table in re.findall(r"`(\w+)`", row)]
    morphogen.query("SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in tables))


def test_every_view_of_growth_stands_on_the_page() -> None:
    from morphogen.consumers.projections.builtin import BUILTIN

    wanted: set[Any] = set()
    for cls in BUILTIN:
        if cls.name in {"slots", "slot_faults", "decisions", "policies"}:
            wanted |= {name for name in (*cls.tables, *cls.views) if not name.startswith("_")}

    assert {name for name in wanted if f"`{name}`" not in REPORT} == set()
