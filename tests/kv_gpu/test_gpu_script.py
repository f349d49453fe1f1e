"""The benchmark for a GPU takes all its steps on the host's memory, too, so that it is known to run before it is needed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'morphogen[hf]'")
pytest.importorskip("transformers", reason="needs transformers: pip install 'morphogen[hf]'")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kv" / "gpu.py"


def test_the_script_runs_without_a_gpu_and_says_so(tmp_path: Path) -> None:
    words = ["--host", "--pool-mib", "8", "--tokens", "128", "--rounds", "1", "--json", tmp_path / "found.json"]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["gpu"] is False and "no figures of a GPU" in done.stdout
    assert found["resume"]["largest_difference_of_logits_to_the_owners_own"] == 0.0
    assert found["handoff"]["bytes"] == 8 << 20
