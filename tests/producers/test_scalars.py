"""What people pass to log() becomes plain numbers, or is refused with a reason."""

import decimal
import fractions
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.bus.spool.numbers import PLAIN
from morphogen.producers.scalars import on_device, scalars
from morphogen.schemas import Metrics, decode_event


def test_numbers_of_every_kind_are_taken() -> None:
    torch = pytest.importorskip("torch")
    numbers, refused = scalars(
        {
            "float": 0.5, "int": 2**63 - 1, "bool": True, "np": np.float32(0.25), "np0": np.array(3), "np1": np.ones(1),
            "torch": torch.tensor(1.5, requires_grad=True), "bf16": torch.tensor([2.0], dtype=torch.bfloat16),
            "decimal": decimal.Decimal("0.5"), "fraction": fractions.Fraction(1, 4), "huge": 10**30, "none": None,
        }
    )  # fmt: skip

    assert refused == {}
    assert numbers == {
        "float": 0.5, "int": 2**63 - 1, "bool": 1, "np": 0.25, "np0": 3, "np1": 1.0, "torch": 1.5, "bf16": 2.0,
        "decimal": 0.5, "fraction": 0.25, "huge": 1e30,
    }  # fmt: skip
    assert {*map(type, numbers.values())} <= PLAIN


def test_nested_values_get_a_path() -> None:
    assert scalars({"train": {"loss": 1, "acc": {"top1": 2}}, 3: 4}) == (
        {"train/loss": 1, "train/acc/top1": 2, "3": 4},
        {},
    )


def test_what_is_no_number_is_refused_with_its_reason_and_the_rest_is_kept() -> None:
    numbers, refused = scalars(
        {"loss": 1.0, "text": "abc", "many": np.zeros(3), "list": [1], "z": 1j, "nz": np.complex64(1)}
    )

    assert numbers == {"loss": 1.0}
    assert set(refused) == {"text", "many", "list", "z", "nz"}
    assert "run.line()" in refused["text"]


def test_endless_nesting_ends() -> None:
    loop: dict[str, object] = {}
    loop["again"] = loop

    numbers, refused = scalars(loop)

    assert numbers == {}
    assert len(refused) == 1


def test_nan_and_infinities_are_values() -> None:
    numbers, _ = scalars({"nan": np.float32("nan"), "inf": math.inf})

    assert math.isnan(numbers["nan"])
    assert numbers["inf"] == math.inf


@given(
    st.dictionaries(
        st.text(max_size=5), st.one_of(st.floats(), st.integers(), st.none(), st.text(max_size=3), st.booleans())
    )
)
def test_whatever_is_taken_is_readable_from_the_log(values: dict[str, object]) -> None:
    numbers, _ = scalars(values)

    assert {*map(type, numbers.values())} <= PLAIN
    assert isinstance(decode_event("metrics.scalars", 1, Metrics(values=numbers).encode()), Metrics)


def test_cpu_values_are_not_on_a_device() -> None:
    torch = pytest.importorskip("torch")

    assert not on_device(1.0)
    assert not on_device(torch.tensor(1.0))
    assert not on_device(np.float32(1))
