"""Numbers of a device arrive in order, without anybody waiting for them."""

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from morphogen.producers.deferred import DeviceScalars

torch = pytest.importorskip("torch")


class LateArrival:
    """Stands for a CUDA event: arrives when the test says so."""

    def __init__(self) -> None:
        self.there = threading.Event()

    def query(self) -> bool:
        return self.there.is_set()

    def synchronize(self) -> None:
        self.there.wait(10)


def test_numbers_are_recorded_when_they_have_arrived_and_in_order() -> None:
    seen: list[tuple[dict[str, Any], int, int]] = []
    arrivals: list[LateArrival] = []

    def copy(values: list[Any]) -> tuple[Any, LateArrival]:
        arrivals.append(LateArrival())
        return torch.stack([value.double() for value in values]), arrivals[-1]

    def emit(numbers: Mapping[str, int | float], step: int, time_ns: int) -> None:
        seen.append((dict(numbers), step, time_ns))

    device = DeviceScalars(emit, copy)
    device.take({"loss": torch.tensor(0.5), "acc": torch.tensor(0.25)}, 1, 10)
    device.take({"loss": torch.tensor(0.125)}, 2, 20)

    assert not device.flush(0.05)
    arrivals[1].there.set()
    assert not device.flush(0.05)
    arrivals[0].there.set()

    assert device.flush(5)
    assert seen == [({"loss": 0.5, "acc": 0.25}, 1, 10), ({"loss": 0.125}, 2, 20)]
    device.close(1)
