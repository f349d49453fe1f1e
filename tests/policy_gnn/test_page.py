"""The page on the learned policy: its programs run, its commands are those that there are."""

import re
from pathlib import Path

import pytest

from morphogen.bus.settings import Settings
from morphogen.cli.app import run as morphogen

PAGE = (Path(__file__).parents[2] / "docs" / "gnn-policy.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CONSOLE = [line[2:] for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


def test_the_page_runs_from_top_to_bottom(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    school, train, load = PYTHON
    (tmp_path / "school.py").write_text(school)
    for line in CONSOLE:
        words = [word.strip("'") for word in line.split()]
        assert words[0] == "morphogen"
        if "40" in words:
            words[words.index("40")] = "2"
        assert morphogen(words[1:]) == 0, line
    found: dict[str, object] = {}
    for program in (train, load):
        exec(program, found)

    said = capsys.readouterr().out
    assert "judged germinations" in said
    assert "gnn-ppo" in said.splitlines()[-1]
    assert (tmp_path / "small.safetensors").exists()
