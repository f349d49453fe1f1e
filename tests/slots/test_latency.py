"""What a seed adds to the forward pass is timed against the same pass without it."""

import time

import pytest
import torch
from torch import nn

from morphogen.kernels.slots import SlotError, adapt, latency_share

X = torch.randn(8, 4)


class Slow(nn.Module):
    """A seed that takes its time, by a clock of the test."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        super().__init__()
        self.linear, self.clock, self.seconds = nn.Linear(4, 4), clock, seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.clock[0] += self.seconds
        return self.linear(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("blended", [True, False])
def test_it_is_the_share_that_the_seed_adds_and_leaves_no_trace(blended: bool) -> None:
    clock = [0.0]
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    slots = adapt(model, sites="0", example=X)
    slots["0#0"].germinate(Slow(clock, 0.25), blueprint="slow")
    slots["0#0"].to("training")
    if blended:
        slots["0#0"].to("blending")
        slots["0#0"].set_alpha(0.5)
    state = torch.get_rng_state()

    def evaluate(model: nn.Module) -> float:
        clock[0] += 1.0
        return float(model(X).sum())

    assert latency_share(slots, "0#0", evaluate, rounds=3, clock=lambda: clock[0]) == pytest.approx(0.25)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    assert slots["0#0"].alpha == (0.5 if blended else 0.0)


def test_by_the_real_clock_a_large_seed_costs_more_than_nothing() -> None:
    model = nn.Sequential(nn.Linear(64, 64))
    slots = adapt(model, sites="0", example=torch.randn(2, 64))
    slots["0#0"].germinate(nn.Sequential(nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 64)), blueprint="large")
    slots["0#0"].to("training")
    x = torch.randn(256, 64)
    began = time.monotonic()

    assert latency_share(slots, "0#0", lambda model: float(model(x).sum())) > 0.5
    assert time.monotonic() - began < 60


def test_where_no_seed_stands_there_is_nothing_to_time() -> None:
    slots = adapt(nn.Sequential(nn.Linear(4, 4)), sites="0", example=X)
    with pytest.raises(SlotError, match="there is nothing to time"):
        latency_share(slots, "0#0", lambda model: 0.0)
