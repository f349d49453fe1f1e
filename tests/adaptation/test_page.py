"""The page on growth says what the code does."""

import re
from pathlib import Path

import pytest

from morphogen.bus.broker import Endpoint
from morphogen.consumers.adaptation import GrowthConfig
from morphogen.kernels.slots import LEGAL
from morphogen.schemas import SlotFailed

PAGE = (Path(__file__).parents[2] / "docs" / "adaptation.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_snippets_of_the_page_run(broker: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    known: dict[str, object] = {"__name__": "page"}
    for code in PYTHON:
        exec(compile(code, "adaptation.md", "exec"), known)
    grown = re.search(r"80 epochs, (\d+) parameters have grown", capsys.readouterr().out)
    assert grown is not None
    assert int(grown[1]) > 0


def test_every_setting_stands_in_the_page_with_its_default() -> None:
    for name, default in zip(GrowthConfig.__struct_fields__, GrowthConfig.__struct_defaults__, strict=True):
        row = next((line for line in PAGE.splitlines() if line.startswith("|") and f"`{name}`" in line), None)
        assert row is not None, name
        shown = {True: "True", False: "False", None: "None"}.get(default) if isinstance(default, bool | None) else None
        text = shown or (
            f'"{default}"'
            if isinstance(default, str)
            else f"{default:g}"
            if not isinstance(default, tuple)
            else str(default)
        )
        assert text in row, (name, text)


def test_every_stage_stands_in_the_page() -> None:
    assert [stage for stage in LEGAL if str(stage) not in PAGE] == []
    assert SlotFailed.type in PAGE
