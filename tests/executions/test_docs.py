"""The page on executions shows what runs, and names what there is."""

import re
from pathlib import Path

import pytest

import morphogen.consumers.executions as reading
import morphogen.producers.executions as recording
from morphogen.bus import broker as brokers
from morphogen.bus.settings import Settings
from morphogen.consumers.projections.builtin.crystals import HORIZON_DAYS, Crystals
from morphogen.consumers.projections.builtin.dispatches import Dispatches
from morphogen.consumers.projections.builtin.executions import Executions
from morphogen.schemas.executions import JUDGES, OUTCOMES

PAGE = (Path(__file__).parents[2] / "docs" / "executions.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("place", range(len(SNIPPETS)))
def test_a_snippet_of_the_page_runs_as_it_stands(place: int, home: Path) -> None:
    exec(compile(SNIPPETS[place], f"docs/executions.md, snippet {place + 1}", "exec"), {})

    recording.close()
    brokers.down(Settings.from_environ())


def test_the_page_names_every_table_outcome_judge_and_column_of_worth() -> None:
    for projection in (Executions, Dispatches, Crystals):
        for name in (*projection.tables, *projection.views):
            assert name.startswith("_") or f"`{name}`" in PAGE
    for word in (*OUTCOMES, *JUDGES, "making_microusd", "net_value_microusd", "break_even_uses", "uses_per_day"):
        assert f"`{word}`" in PAGE
    assert f"over {HORIZON_DAYS} days" in PAGE


@pytest.mark.parametrize("room", [reading, recording], ids=["reading", "recording"])
def test_every_public_name_is_there(room: object) -> None:
    for name in room.__all__:  # type: ignore[attr-defined]
        assert callable(found := getattr(room, name)) or not hasattr(found, "__path__"), name
        assert type(found).__name__ != "module", name
