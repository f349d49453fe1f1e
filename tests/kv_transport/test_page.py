"""The examples of the page on transports run as they stand."""

import re
from pathlib import Path

import pytest

from morphogen.kernels.kv.transport import shared_memory

PAGE = (Path(__file__).parents[2] / "docs" / "kv-transports.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("number", "says"), [(0, "freed already\n"), (1, "40\n")])
def test_an_example_runs_as_it_stands(
    number: int, says: str, shm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "torch" in EXAMPLES[number]:
        pytest.importorskip("transformers", reason="needs transformers: pip install 'morphogen[hf]'")
    monkeypatch.setattr(shared_memory, "default_folder", lambda: shm)
    exec(EXAMPLES[number], {})
    assert capsys.readouterr().out == says


@pytest.mark.parametrize(
    "name", ["CudaMemory", "SharedPool", "borrow", "HostMemory", "prepare", "offer", "reap", "segments"]
)
def test_what_the_page_names_is_there(name: str) -> None:
    from morphogen.kernels.kv import pool, transport
    from morphogen.kernels.kv.transport.segments import Segments

    assert name in PAGE
    assert name in transport.__all__ or name in pool.__all__ or hasattr(Segments, name)
