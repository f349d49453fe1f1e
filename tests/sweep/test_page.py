"""The page on tuning: its program runs, its settings are all there, its words are true."""

import re
from pathlib import Path
from typing import Any

from morphogen.producers.loops.sweep.settings import SETTINGS
from morphogen.schemas.knowledge.program import load

PAGE = (Path(__file__).parents[2] / "docs" / "knowledge" / "tuning.md").read_text()


def test_the_program_of_the_page_checks_runs_and_reports(runs: Any) -> None:
    (program,) = re.findall(r"```knowledge\n(.*?)```", PAGE, re.DOTALL)
    (tool,) = re.findall(r"```python\n# sorting\.py\n(.*?)```", PAGE, re.DOTALL)
    path = runs.write(program)
    (runs.folder / "sorting.py").write_text(tool)
    assert [one.message for one in load(path).warnings] == []

    ended = runs.start(path)

    assert ended.status == "done", ended.reason
    assert len(runs.trials()) == 12
    assert {one.state for one in runs.trials()} == {"measured"}
    assert "Performance.keys_per_s" in (runs.folder / "report.md").read_text()


def test_every_setting_stands_in_the_page() -> None:
    for name in SETTINGS:
        if name != "description":
            assert f"`{name}:`" in PAGE, name
