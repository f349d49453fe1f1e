"""The example makes a tool, calls it, and sees it step back when the world changes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from morphogen.bus.settings import Settings

EXAMPLE = Path(__file__).parents[2] / "examples" / "crystallize.py"


def test_the_example_makes_a_tool_and_the_next_start_still_has_it(settings: Settings) -> None:
    pytest.importorskip("wordllama", reason="wordllama is not installed: pip install 'morphogen[match]'")
    told = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(EXAMPLE)],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        told.append(done.stdout)
    assert "def run(run: str)" in told[0]
    assert "promoted after" in told[0]
    assert "the tool of an earlier time is here" in told[1]
    for one in told:
        modes = re.findall(r"^  (crystallized|follower|mixed|learner): \{", one, re.MULTILINE)
        assert modes[:3] == ["crystallized"] * 3
        assert modes[3] in {"learner", "follower"}  # what was done once in the changed world can be followed
        assert modes[4] == "crystallized"
        assert "crystallized gave way" in one
