"""A recorded run tells who listens what it records, and that it is about to end."""

import logging

import pytest
import torch
from torch import nn

from morphogen.bus.broker import Endpoint
from morphogen.bus.settings import Settings
from morphogen.producers import record
from morphogen.schemas import Event, LayerHealth, LogLine, RunFinished


def test_a_listener_hears_events_and_the_health_of_layers_and_can_stop(broker: Endpoint, settings: Settings) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    heard: list[tuple[Event, int | None]] = []
    run = record("heard", settings=settings)
    run.watch(model, optimizer)
    stop = run.subscribe(lambda event, step: heard.append((event, step)))
    for step in range(3):
        model(torch.randn(4, 3)).sum().backward()
        optimizer.step()
        run.log(loss=0.5, step=step + 11)
    run.line("hello", step=13)
    run.settle()
    health = [step for event, step in heard if isinstance(event, LayerHealth)]
    assert health == [11, 12, 13]
    assert [step for event, step in heard if isinstance(event, LogLine)] == [13]
    assert (run.step, run.settings.home) == (13, settings.home)
    stop()
    run.line("nobody listens")
    assert len(heard) == 4
    run.finish()


def test_a_listener_that_raises_is_told_of_once_and_stops_nothing(
    broker: Endpoint, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(event: Event, step: int | None) -> None:
        raise ValueError("not today")

    run = record("raises", settings=settings)
    run.subscribe(fails)
    with caplog.at_level(logging.WARNING, "morphogen"):
        assert run.line("one") is None
        assert run.line("two") is None
    run.finish()
    assert [message for message in caplog.messages if "not today" in message] != []
    assert len([message for message in caplog.messages if "not today" in message]) == 1
    assert run.stats()["log"].produced == 2


def test_what_is_to_happen_before_the_end_can_still_be_recorded(broker: Endpoint, settings: Settings) -> None:
    heard: list[type[Event]] = []
    run = record("before", settings=settings)
    run.subscribe(lambda event, step: heard.append(type(event)))
    run.before_end(lambda: run.line("last words"))
    run.before_end(lambda: 1 / 0)
    forget = run.before_end(lambda: run.line("never"))
    forget()
    run.fail("enough")
    run.finish()
    assert heard[0] is LogLine
    assert len([kind for kind in heard if kind is LogLine]) == 1
    assert RunFinished not in heard
