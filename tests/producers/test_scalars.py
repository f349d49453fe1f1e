"""What people pass to log() becomes plain numbers, or is refused with a reason."""

import decimal
import fractions
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.bus.spool.numbers import PLAIN
from morphogen.producers.scalars import on_device, scalars
from morphogen.schemas import Metrics, decode_event


def test_numbers_of_every_kind_are_taken() -> None:
    torch = pytest.importorskip("torch")
    numbers, refused, far = scalars(
        {
            "float": 0.5, "int": 2**63 - 1, "bool": True, "np": np.float32(0.25), "np0": np.array(3), "np1": np.ones(1),
            "torch": torch.tensor(1.5, requires_grad=True), "bf16": torch.tensor([2.0], dtype=torch.bfloat16),
            "decimal": decimal.Decimal("0.5"), "fraction": fractions.Fraction(1, 4), "huge": 10**30, "none": None,
        }
    )  # fmt: skip

    assert (refused, far) == ({}, {})
    assert numbers == {
        "float": 0.5, "int": 2**63 - 1, "bool": 1, "np": 0.25, "np0": 3, "np1": 1.0, "torch": 1.5, "bf16": 2.0,
        "decimal": 0.5, "fraction": 0.25, "huge": 1e30,
    }  # fmt: skip
    assert {*map(type, numbers.values())} <= PLAIN


def test_nested_values_get_a_path() -> None:
    assert scalars({"train": {"loss": 1, "acc": {"top1": 2}}, 3: 4}) == (
        {"train/loss": 1, "train/acc/top1": 2, "3": 4},
        {},
        {},
    )


def test_what_is_no_number_is_refused_with_its_reason_and_the_rest_is_kept() -> None:
    numbers, refused, _ = scalars(
        {"loss": 1.0, "text": "abc", "many": np.zeros(3), "list": [1], "z": 1j, "nz": np.complex64(1)}
    )

    assert numbers == {"loss": 1.0}
    assert set(refused) == {"text", "many", "list", "z", "nz"}
    assert "run.line()" in refused["text"]


def test_endless_nesting_ends() -> None:
    loop: dict[str, object] = {}
    loop["again"] = loop

    numbers, refused, _ = scalars(loop)

    assert numbers == {}
    assert len(refused) == 1


def test_nan_and_infinities_are_values() -> None:
    numbers, _, _ = scalars({"nan": np.float32("nan"), "inf": math.inf})

    assert math.isnan(numbers["nan"])
    assert numbers["inf"] == math.inf


@given(
    st.dictionaries(
        st.text(max_size=5), st.one_of(st.floats(), st.integers(), st.none(), st.text(max_size=3), st.booleans())
    )
)
def test_whatever_is_taken_is_readable_from_the_log(values: dict[str, object]) -> None:
    numbers, _, _ = scalars(values)

    assert {*map(type, numbers.values())} <= PLAIN
    assert isinstance(decode_event("metrics.scalars", 1, Metrics(values=numbers).encode()), Metrics)


def test_cpu_values_are_not_on_a_device() -> None:
    torch = pytest.importorskip("torch")

    assert not on_device(1.0)
    assert not on_device(torch.tensor(1.0))
    assert not on_device(np.float32(1))


class Far:
    """Stands for a tensor on a CUDA device, which must not be read."""

    device = SimpleNamespace(type="cuda")

    def __init__(self, size: int = 1, complex: bool = False) -> None:  # noqa: A002
        self.numel, self.is_complex = lambda: size, lambda: complex

    def detach(self) -> None:
        raise AssertionError("read")

    item = detach


class Lazy:
    """Fails wherever it is touched."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name} yet")


class Key:
    def __str__(self) -> str:
        raise RuntimeError("never")


class Torn(dict[str, Any]):
    def items(self) -> Any:
        yield "read", 2.0
        raise RuntimeError("torn")


def test_an_odd_value_costs_itself_alone() -> None:
    far = Far()
    numbers, refused, found = scalars(
        {"lazy": Lazy(), "many": Far(3), "z": Far(complex=True), Key(): 1.0, "torn": Torn(), "far": far, "loss": 0.5}
    )

    assert numbers == {"torn/read": 2.0, "loss": 0.5}
    assert found == {"far": far}
    assert {name: reason.partition(";")[0] for name, reason in refused.items()} == {
        "lazy": "no __class__ yet", "many": "3 elements are no scalar", "z": "a complex is no number", "<Key>": "never",
        "torn": "torn",
    }  # fmt: skip


def test_what_numpy_masks_was_not_measured() -> None:
    masked = np.ma.array([3.0, 4.0], mask=[True, False])

    assert scalars(
        {"a": np.ma.masked, "b": masked[0], "c": masked[1], "d": masked[:1], "e": np.ma.array(3.0, mask=True)}
    ) == ({"c": 4.0}, {}, {})


_KEYS = st.sampled_from([1, "1", "p", "p/q", "q", "q/p"])


@given(st.dictionaries(_KEYS, st.one_of(st.floats(0, 1), st.dictionaries(_KEYS, st.floats(0, 1)), st.just(Far()))))
def test_of_values_that_meet_under_one_name_the_first_is_kept_and_the_others_are_told(values: dict[Any, Any]) -> None:
    def leaves(of: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, Any]]:
        return [
            leaf
            for key, value in of.items()
            for leaf in (leaves(value, f"{prefix}{key}/") if isinstance(value, dict) else [(f"{prefix}{key}", value)])
        ]

    found = leaves(values)
    numbers, refused, far = scalars(values)

    assert {**numbers, **far} == dict(reversed(found))
    names = [name for name, _ in found]
    assert set(refused) == {name for name in names if names.count(name) > 1}
    assert all("has that name" in reason for reason in refused.values())
