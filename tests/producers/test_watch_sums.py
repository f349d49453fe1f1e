"""The sums behind the signals, against float64, at every size and magnitude."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.producers.watch import sums
from morphogen.producers.watch.activations import Plan, Rooms


@settings(max_examples=150, deadline=None)
@given(
    size=st.one_of(st.integers(1, 300), st.integers(8000, 30000)),
    power=st.integers(-44, 37),
    offset=st.sampled_from([0.0, 1.0, 1e4]),
    seed=st.integers(0, 1000),
)
def test_norms_and_moments_are_right_to_float32(size: int, power: int, offset: float, seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal(size)
    with np.errstate(all="ignore"):
        values = ((noise + offset) * 10.0**power).astype(np.float32)
        exact = values.astype(np.float64)
        square = sums.sum_of_squares(values)
        mean, spread, bad = sums.moments(values)
        if not np.isfinite(exact).all():
            assert bad == np.count_nonzero(~np.isfinite(exact))
            assert not np.isfinite(square)
            return

    np.testing.assert_allclose(np.sqrt(square), np.linalg.norm(exact), rtol=1e-6)
    np.testing.assert_allclose(mean, exact.mean(), rtol=1e-6, atol=1e-6 * exact.std() + 1e-60)
    np.testing.assert_allclose(spread / size, exact.var(), rtol=1e-5)
    assert bad == 0


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 5), size=st.sampled_from([1, 7, 4096, 10000]), power=st.sampled_from([-30, 0, 25]))
def test_outputs_summed_together_equal_outputs_measured_alone(rows: int, size: int, power: int) -> None:
    values = (np.random.default_rng(rows).standard_normal((rows, size)) * 10.0**power).astype(np.float32)
    values[0] += np.float32(100) * np.float32(10.0**power)
    outputs = [torch.from_numpy(row) for row in values]
    plan = Plan(list(range(rows)), outputs, Rooms())
    with np.errstate(all="ignore"):
        assert plan.copy(outputs)
        together = plan.sums().outputs()
    for row, (_, _, mean, spread, bad) in zip(values.astype(np.float64), together, strict=True):
        np.testing.assert_allclose(mean, row.mean(), rtol=1e-6, atol=1e-6 * row.std())
        np.testing.assert_allclose(spread / size, row.var(), rtol=1e-5)
        assert bad == 0


def test_a_long_constant_buffer_does_not_drift() -> None:
    values = np.full(3_000_001, 0.1, dtype=np.float32)
    exact = values.astype(np.float64)

    np.testing.assert_allclose(sums.sum_of_squares(values), float(exact.dot(exact)), rtol=2e-6)
    mean, spread, _ = sums.moments(values)
    np.testing.assert_allclose(mean, exact.mean(), rtol=1e-7)
    assert spread / values.size < 1e-14


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 65536, 1_000_003])
def test_a_split_covers_the_buffer_by_equal_rows(size: int) -> None:
    pieces = sums.split(size)
    if pieces is not None:
        assert size % pieces == 0
        assert size // pieces <= sums.CHUNK
    else:
        assert size in (0, 8193, 1_000_003)
    assert sums.split(0) is None


def test_the_two_ways_to_multiply_rows_agree() -> None:
    matrix = np.random.default_rng(0).standard_normal((5, 33)).astype(np.float32)
    vector = np.ones(33, dtype=np.float32)

    room = np.zeros(5, dtype=np.float32)

    np.testing.assert_allclose(sums._matmul_rows(matrix, matrix, room), sums.row_dots(matrix), rtol=1e-6)
    np.testing.assert_allclose(room, sums.row_dots(matrix, np.zeros(5, dtype=np.float32)), rtol=1e-6)
    np.testing.assert_allclose(sums._matmul_rows(matrix, vector), sums.row_sums(matrix), rtol=1e-5, atol=1e-6)
