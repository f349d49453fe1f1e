"""A run that goes on has the program that its log holds: no file of the machine adds to it, no later check ends it."""

from pathlib import Path
from typing import Any

import pytest

from morphogen.producers.loops.errors import ProgramChanged
from morphogen.producers.loops.history import History
from morphogen.producers.loops.sources import program_of
from morphogen.producers.loops.tools import Toolbox
from morphogen.schemas import LoopStarted
from morphogen.schemas.knowledge.errors import KnowledgeError
from morphogen.schemas.knowledge.program import load_text

TASK = 'task t { step a: tool.run { cmd: "true" } }'
REFUSED = "system S { trace_schema { variant V { case C { origin: string } } } } " + TASK


def history(path: Path, text: str, sha256: str = "") -> History:
    made = History("r")
    made.source = LoopStarted(loop="t", kind="task", program=str(path), sha256=sha256, text=text)
    made.state.program, made.state.sha256 = str(path), sha256
    return made


def resumed(kept: History) -> tuple[Any, bool]:
    return program_of(None, kept, Toolbox.standard(installed=False), None, False)  # type: ignore[arg-type]


def test_a_program_of_the_log_reads_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret.mk").write_text("system Sec { const TOKEN = 3 }")

    with pytest.raises(KnowledgeError, match=r"the log does not hold the text of `secret\.mk`"):
        resumed(history(tmp_path / "gone.mk", f'use "secret.mk"\n{TASK}'))


def test_a_program_that_only_a_later_version_refuses_goes_on_as_it_began(tmp_path: Path) -> None:
    path = tmp_path / "t.mk"
    path.write_text(REFUSED)
    kept = history(path, REFUSED, load_text(REFUSED, sealed=True).sha256)
    with pytest.raises(KnowledgeError, match="K117"):
        load_text(REFUSED)

    program, changed = resumed(kept)
    assert (program.text, changed) == (REFUSED, False)
    path.write_text(REFUSED + "\n")
    with pytest.raises(ProgramChanged, match=r"does not check: .*K117"):
        resumed(kept)
