"""Bodies read as one matrix give the rows that bodies read one by one give."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from morphogen.consumers.projections import Batch
from morphogen.consumers.projections.builtin import layer_health, metrics
from morphogen.consumers.projections.builtin.layer_health import LayerHealthRows
from morphogen.consumers.projections.builtin.metrics import MetricRows
from morphogen.schemas import Event, LayerHealth, Metrics, Names

NAMES = Names(["encoder.grad_norm", "head", "é"])


def health(step: int, names: Names = NAMES, **more: Any) -> LayerHealth:
    vectors = {
        "grad_norm": np.array([step, math.nan, math.inf][: len(names)], "f4"),
        "nonfinite": np.full(len(names), step * 0.5, "f4"),
    }
    return LayerHealth(layers=names, **{**vectors, **more})


CASES: dict[str, list[Event]] = {
    "floats": [Metrics(values={"loss": i / 7, "lr": math.nan if i % 3 else -0.0}) for i in range(40)],
    "small integers": [Metrics(values={"loss": float(i), "epoch": 3, "down": -2}) for i in range(40)],
    "integers of two bytes": [Metrics(values={"tokens": 1000 + i}) for i in range(40)],
    "integers that grow": [Metrics(values={"tokens": i * 50}) for i in range(40)],
    "integers beyond a double": [Metrics(values={"tokens": 2**53 + i, "x": 1.0}) for i in range(40)],
    "other names later": [Metrics(values={"a" if i < 20 else "long": float(i)}) for i in range(40)],
    "other names of the same length": [Metrics(values={"a" if i % 2 else "b": float(i)}) for i in range(40)],
    "no values": [Metrics(values={}) for _ in range(9)],
    "many names": [Metrics(values={f"n{j}": float(i * j) for j in range(300)}) for i in range(9)],
    "layers": [health(i) for i in range(40)],
    "two models": [health(i, NAMES if i < 20 else Names(["x"])) for i in range(40)],
    "other layers of the same length": [health(i, Names(["x" if i % 2 else "y"])) for i in range(40)],
    "gaps": [health(i, missing={"grad_norm": [0]}) for i in range(40)],
    "doubles": [health(i, grad_norm=np.array([0.1, 0.2, 0.3])) for i in range(40)],
    "wrong length": [health(i, grad_norm=np.array([1], "f4")) for i in range(40)],
    "no layers": [LayerHealth(layers=Names([])) for _ in range(9)],
    "a thousand layers": [health(i, Names([f"l{j}" for j in range(3)]), dead_share=None) for i in range(20)],
}


@pytest.mark.parametrize("case", CASES)
def test_a_matrix_of_bodies_gives_the_same_rows(
    case: str, fresh: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = fresh()
    for start in range(0, len(CASES[case]), 7):
        log.write(*CASES[case][start : start + 7], step=start)
    fast, slow = Batch.read(log.messages), Batch.read(log.messages)
    projection = MetricRows() if isinstance(CASES[case][0], Metrics) else LayerHealthRows()
    table = projection.name

    quick, held = projection.fold(fast), projection.holds(fast)
    for module in (metrics, layer_health):
        monkeypatch.setattr(module, "_read_alike", lambda _: None)
    plain, plainly_held = projection.fold(slow), projection.holds(slow)

    assert held.tolist() == plainly_held.tolist()
    assert quick.keys() == plain.keys()
    for name, kind in projection.columns[table].items():
        first = quick[table].arrow({**projection.columns[table]})[name].to_pylist()
        second = plain[table].arrow({**projection.columns[table]})[name].to_pylist()
        assert list(map(repr, first)) == list(map(repr, second)), (name, kind)


def test_the_matrix_is_used_where_bodies_are_alike(fresh: Callable[[], Any]) -> None:
    for case in ("floats", "small integers", "integers of two bytes", "other names later", "layers", "two models"):
        log = fresh()
        log.write(*CASES[case])
        batch = Batch.read(log.messages)
        if isinstance(CASES[case][0], Metrics):
            assert metrics._read_alike(batch.of("metrics.scalars", metrics.msgspec.Raw)) is not None, case
        else:
            assert layer_health._read_alike(batch.of("health.layer", layer_health.msgspec.Raw)) is not None, case
