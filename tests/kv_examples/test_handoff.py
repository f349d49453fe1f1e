"""The example of a handoff does what it says, with a model of its own and with one that is given."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import morphogen
from morphogen.bus.settings import Settings

EXAMPLE = Path(__file__).parents[2] / "examples" / "handoff.py"


@pytest.fixture(autouse=True)
def _needed() -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    pytest.importorskip("gguf", reason="the gguf package is not installed, so no model can be made")


def run(*arguments: str) -> str:
    """Run the example and return what it printed; it may print nothing to stderr."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def test_the_second_process_says_what_the_first_would_have_said_and_the_log_tells_of_it(settings: Settings) -> None:
    told = run()

    assert "the same as if nobody had been killed: True" in told
    restored, computed = (
        int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:restored|computed)", told)
    )
    assert restored > 3000
    assert computed <= 32  # a state was saved each 16 tokens
    assert len(set(re.findall(r"^process (\d+)", told, re.MULTILINE))) == 2
    asked = "SELECT tokens, restored, recomputed, pending FROM kv_session_events WHERE what = 'loaded'"
    (row,) = morphogen.query(asked, wait=True)
    assert (row["restored"], row["recomputed"], row["pending"]) == (restored, computed, True)


def test_a_model_of_the_users_own_is_taken_and_a_second_time_too(tmp_path: Path, settings: Settings) -> None:
    line = f"import runpy, pathlib; runpy.run_path({str(EXAMPLE)!r})['make_model'](pathlib.Path('own.gguf'))"
    subprocess.run([sys.executable, "-c", line], cwd=tmp_path, check=True, timeout=60)

    for _ in range(2):
        assert "nobody had been killed: True" in run(str(tmp_path / "own.gguf"))
