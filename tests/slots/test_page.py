"""The page on slots says what is so: its programs run, its table of stages is the table."""

import re
from pathlib import Path

import torch

from morphogen.kernels.slots import GATE_OF, LEGAL, Stage

PAGE = (Path(__file__).parents[2] / "docs" / "slots.md").read_text()


def test_the_programs_of_the_page_run_in_their_order() -> None:
    space: dict[str, object] = {"__name__": "page"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for source in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(compile(source, "slots.md", "exec"), space)
    assert {"plain", "again", "result"} <= space.keys()


def test_the_table_of_stages_is_the_table() -> None:
    rows = re.findall(r"^\| (\w+) \| ([\w, ]*) ?\| (?:the host|both)", PAGE, re.MULTILINE)

    assert {
        Stage(here): tuple(Stage(there.strip()) for there in after.split(", ") if there.strip()) for here, after in rows
    } == {stage: LEGAL[stage] for stage in Stage}


def test_the_table_of_gates_names_every_gate_and_its_stage() -> None:
    rows = re.findall(r"^\| (G\d) \| (\w+) \|", PAGE, re.MULTILINE)

    assert dict(rows) == {gate: str(there) for (_, there), gate in GATE_OF.items()}
