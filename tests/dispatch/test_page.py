"""The page on dispatch runs as it stands."""

import re
from pathlib import Path

import pytest

from morphogen.bus.broker import Endpoint
from morphogen.consumers.dispatch import DispatchConfig

PAGE = Path(__file__).parents[2] / "docs/dispatch.md"


def test_the_example_of_the_page_runs(
    broker: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from morphogen.producers import executions

    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    try:
        exec(compile(block, str(PAGE), "exec"), {"__name__": "page"})
    finally:
        executions.close()
    assert "follower True the goal's own family" in capsys.readouterr().out


def test_the_settings_of_the_page_are_the_defaults() -> None:
    table = PAGE.read_text().partition("| `DispatchConfig`")[2].partition("\n\n")[0]
    told: dict[str, str] = {}
    for row in table.splitlines()[2:]:
        names, values = row.split("|")[1:3]
        told |= dict(zip(re.findall(r"`(\w+)`", names), values.strip().split(", "), strict=True))
    config = DispatchConfig()
    assert told == {name: str(getattr(config, name)).removesuffix(".0") for name in DispatchConfig.__dataclass_fields__}
