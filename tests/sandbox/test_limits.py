"""Limits: what is no limit is refused where it is given, in one line, and never seen by a worker."""

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.kernels.sandbox import BadJob, Limits, Sandbox
from morphogen.kernels.sandbox.inside import sealing

SECONDS = ("wall_seconds", "capability_seconds")
COUNTS = tuple(name for name in Limits.__struct_fields__ if name not in SECONDS)
NO_LIMIT: list[Any] = [
    0, -1, True, False, None, "3", math.nan, math.inf, -math.inf, 1 << 41, 10**5000, -(10**5000), 1j, [], 2.0**63,
]  # fmt: skip


@pytest.mark.parametrize("name", Limits.__struct_fields__)
def test_what_is_no_limit_is_refused_by_its_name(name: str) -> None:
    for value in NO_LIMIT:
        with pytest.raises(BadJob, match=f"^the limit {name} must be .*[0-9]$"):
            Limits(**{name: value})


@pytest.mark.parametrize("name", COUNTS)
def test_what_is_counted_is_a_whole_number(name: str) -> None:
    for value in (0.5, 2.0, 1e9):
        with pytest.raises(BadJob, match=f"the limit {name} must be a whole number"):
            Limits(**{name: value})  # type: ignore[arg-type]


@given(st.sampled_from(Limits.__struct_fields__), st.integers() | st.floats() | st.booleans() | st.none() | st.text())
def test_any_value_is_a_limit_or_one_fault(name: str, value: Any) -> None:
    with contextlib.suppress(BadJob):
        assert getattr(Limits(**{name: value}), name) is value


def test_the_largest_and_the_smallest_limits_run() -> None:
    most = Limits(
        wall_seconds=1e6, cpu_seconds=10**6, memory_bytes=1 << 40, value_bytes=1 << 28, value_items=1 << 40,
        printed_chars=1 << 28, capability_calls=1 << 40, capability_seconds=10**6,
    )  # fmt: skip
    least = Limits(
        cpu_seconds=1, memory_bytes=64 << 20, value_bytes=1, value_items=1, printed_chars=1, capability_calls=1
    )
    for limits in (most, least):
        with Sandbox(limits, pool=0) as sandbox:
            assert sandbox.run("def run():\n    return 1\n").value == 1


def test_an_error_is_told_however_little_a_value_may_hold() -> None:
    least = Limits(value_bytes=30, printed_chars=1)
    text = "def run():\n    raise ValueError('\\U0001f600' * 3000)\n"
    with Sandbox(least, pool=0) as sandbox:
        outcome = sandbox.run(text)

    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.message) == ("ValueError", "\U0001f600" * 2000)


@pytest.mark.parametrize("error", [TypeError("no"), OverflowError("no"), OSError(1, "no"), KeyError("no")])
def test_whatever_is_in_the_way_of_a_layer_is_told_as_its_reason(error: Exception) -> None:
    held: dict[str, str] = {}

    def fail() -> None:
        raise error

    sealing._try(held, "rlimits", fail)
    sealing._try(held, "seccomp", lambda: None)
    assert held["rlimits"].strip("'") == "no"
    assert held["seccomp"] == ""
