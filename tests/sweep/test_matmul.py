"""The matrix product of the examples: every variant is right, and a small sweep finds something better than plain loops."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.schemas import SweepFinished

EXAMPLES = Path(__file__).parents[2] / "examples" / "knowledge"


@pytest.fixture
def kernels() -> Iterator[Any]:
    """The module that measures."""
    sys.path.insert(0, str(EXAMPLES))
    from matmul import kernels

    yield kernels
    sys.path.remove(str(EXAMPLES))


@pytest.mark.parametrize("tiles", [(4, 8, 4), (5, 7, 3), (1, 1, 1), (64, 64, 64)])
def test_every_variant_is_numpys_product_whatever_the_tiles(kernels: Any, tiles: tuple[int, int, int]) -> None:
    a, b, expected = kernels.problem(23)
    for function in kernels.KERNELS.values():
        c = np.zeros((23, 23))
        function(a, b, c, 0, 11, *tiles)  # plain Python: compiling is what the sweep does
        function(a, b, c, 11, 23, *tiles)
        assert np.allclose(c, expected, atol=1e-12)


def test_a_small_sweep_beats_three_plain_loops(runs: Any) -> None:
    shutil.copytree(EXAMPLES / "matmul", runs.folder / "matmul", ignore=shutil.ignore_patterns("__pycache__"))
    text = (EXAMPLES / "matmul.mk").read_text()
    smaller = {
        "budget: 70": "budget: 30",
        'order: ["ijk", "ikj", "jki"]': 'order: ["ijk", "ikj"]',
        'block: ["1x1", "1x4", "2x4"]': 'block: ["1x1", "2x4"]',
        "fastmath: [false, true]": "fastmath: [false]",
    }
    for whole, small in smaller.items():  # fewer variants to compile
        assert whole in text
        text = text.replace(whole, small)
    path = runs.write(text)

    ended = runs.start(path, parameters={"size": 96})

    assert ended.status == "done", ended.reason
    finished = runs.events()[-1]
    assert isinstance(finished, SweepFinished)
    assert finished.config is not None
    assert finished.config["order"] == "ikj"
    assert finished.speedup is not None
    assert finished.speedup > 1.5  # a sanity bound; the benchmark has the figure
    assert finished.excluded > 0
    assert all(one.state in ("measured", "pruned") for one in runs.trials())
    fired = {one.rule for one in runs.events(family="loop") if type(one).__name__ == "LoopRuleFired"}
    assert "MatMul.Walk along rows" in fired
    report = (runs.folder / "report.md").read_text()
    assert "of_numpy" in report
    assert "Walk along rows" in report
