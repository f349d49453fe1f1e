"""The page on KV handoff shows two processes that do what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_two_programs_on_the_page_run_one_after_the_other(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    pytest.importorskip("gguf", reason="the gguf package is not installed, so no model can be made")
    first, second = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "kv.md").read_text(), re.DOTALL)
    line = f"import runpy, pathlib; runpy.run_path({str(ROOT / 'examples' / 'handoff.py')!r})['make_model'](pathlib.Path('model.gguf'))"
    subprocess.run([sys.executable, "-c", line], cwd=tmp_path, check=True, timeout=60)
    told = ""
    for program in (first, second):
        own = program.replace("SharedMemory()", "SharedMemory(Path('segments'))")  # not the user's
        done = subprocess.run(
            [sys.executable, "-c", own],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert (done.returncode, done.stderr) == (0, "")
        told = done.stdout

    assert re.match(r"\d\d tokens are here, and none was read\n", told)
    assert len(told.splitlines()[1]) > 4  # it went on
