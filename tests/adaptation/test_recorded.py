"""A recorded run that grows: its log holds all that is needed to see it again, and to decide again."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from morphogen.bus.broker import Endpoint
from morphogen.bus.bus import Bus
from morphogen.bus.settings import Settings
from morphogen.consumers.executor import fold_all, target
from morphogen.consumers.policy import State, fold, load_policy, observe
from morphogen.consumers.policy.serve import PolicyServer
from morphogen.consumers.policy.timeline import Told, timeline
from morphogen.producers import record
from morphogen.schemas import (
    AdaptationFinished,
    CommandFinished,
    DeadLetter,
    DecisionOutcome,
    DecisionVerdict,
    Event,
    LayerHealth,
    Observed,
    RunFinished,
    SlotGerminated,
    SlotRefused,
    SlotStageChanged,
)

QUICK = {"min_training": 1, "cooldown": 0, "earliest": 0, "max_active": 2}


@pytest.fixture
def bus(broker: Endpoint, settings: Settings) -> Iterator[Bus]:
    with Bus.open(settings) as opened:
        yield opened


def told(bus: Bus, run: str) -> list[Told]:
    """Every event of a run in the order in which its program recorded them."""
    found, counts = [], {}
    for seen in bus.events():
        if seen.frame.run == run and isinstance(seen.event, Event):
            family = seen.event.family
            counts[family] = counts.get(family, 0) + 1  # type: ignore[attr-defined]
            found.append(Told(family, counts[family], seen.record.time, seen.record.step, seen.event, seen.id))  # type: ignore[attr-defined]
    return list(timeline(found))


def test_every_observation_and_every_slot_can_be_had_again_from_the_log(
    bus: Bus, loop: Any, settings: Settings
) -> None:
    one = loop()
    run = record("grows", settings=settings)
    run.watch(one.model, one.optimizer)
    grower = one.grow(run=run, policy="random", seed=4, budget=QUICK)
    one.epochs(12, lambda loss: grower.epoch(train_loss=loss), log=lambda loss: run.log(loss=loss))
    live = {slot_id: (str(slot.stage), slot.alpha, slot.seed_id) for slot_id, slot in grower.slots.items()}
    run.flush()
    state, shown = State(), []
    events = told(bus, "grows")
    for one_told in events:
        if isinstance(one_told.event, Observed):
            again = observe(state)
            assert again.sha256 == one_told.event.observation
            shown.append(again)
        state = fold(state, one_told.event, one_told.step)
    assert len(shown) == 12
    assert any(isinstance(one_told.event, LayerHealth) for one_told in events)
    assert any(isinstance(one_told.event, SlotGerminated) for one_told in events)
    assert shown[-1].features[1:3].size > 0
    again_states = fold_all(one_told.event for one_told in events)
    assert {name: (slot.stage, slot.alpha, slot.seed) for name, slot in again_states.items()} == live
    assert run.rejected == 0
    run.finish()


def test_the_health_of_layers_reaches_the_policy(loop: Any, broker: Endpoint, settings: Settings) -> None:
    one, seen = loop(), []

    class Looks:
        name = "looks"
        version = None

        def decide(self, observation: Any) -> Any:
            from morphogen.consumers.policy import Proposal

            at = observation.column["grad_norm.last"]
            seen.append(float(observation.features[observation.layer_row["0"], at]))
            return Proposal(0)

        def learn(self, outcome: Any) -> None:
            raise AssertionError

    run = record("looks", settings=settings)
    run.watch(one.model, one.optimizer)
    grower = one.grow(run=run, policy=Looks())
    one.epochs(3, lambda loss: grower.epoch(train_loss=loss))
    run.finish()
    assert len(seen) == 3
    assert all(value > 0 for value in seen)


def test_layers_are_measured_as_often_as_a_decision_needs_unless_the_program_says_how_often(
    bus: Bus, loop: Any, settings: Settings
) -> None:
    measured = {}
    for name, every in (("free", None), ("fixed", 5)):
        one = loop()
        run = record(name, settings=settings)
        run.watch(one.model, one.optimizer, every=every)
        grower = one.grow(run=run, policy="none", every=2)
        one.epochs(
            6, lambda loss, grower=grower: grower.epoch(train_loss=loss), log=lambda loss, run=run: run.log(loss=loss)
        )
        run.finish()
        measured[name] = [one.step for one in told(bus, name) if isinstance(one.event, LayerHealth)]
    assert measured == {"free": [1, 7, 13], "fixed": [1, 6, 11, 16]}, "three steps an epoch, two epochs a decision"


def test_the_end_of_the_run_is_the_end_of_growth_though_nobody_says_so(bus: Bus, loop: Any, settings: Settings) -> None:
    one = loop()
    with record("ends", settings=settings) as run:
        grower = one.grow(run=run, policy="random", seed=4, budget=QUICK)
        one.epochs(5, lambda loss: grower.epoch(train_loss=loss))
        before, grown = one.evaluations, grower.params_grown
    assert (one.evaluations, grower.params_grown) == (before, grown)  # nothing is run any more at that time
    assert not one.optimizer._optimizer_step_pre_hooks
    kinds = [type(one_told.event) for one_told in told(bus, "ends")]
    assert AdaptationFinished in kinds
    assert kinds.index(AdaptationFinished) < kinds.index(RunFinished)
    assert DecisionOutcome in kinds


def test_a_run_does_not_keep_a_grower_alive(loop: Any, broker: Endpoint, settings: Settings) -> None:
    import gc
    import weakref

    one = loop()
    run = record("holds", settings=settings)
    gone = weakref.ref(one.grow(run=run, policy="none"))
    gc.collect()
    assert gone() is None
    run.finish()


def until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_commands_over_the_bus_are_done_at_the_ends_of_epochs_and_answered(
    bus: Bus, loop: Any, settings: Settings
) -> None:
    one = loop()
    run = record("far", settings=settings)
    grower = one.grow(run=run, policy="remote", budget=QUICK, config={"remote_wait": 0.2})
    assert grower._inbox is not None
    assert grower._inbox.serving.wait(20)
    wanted = [
        ("germinate", {"slot": "0#0", "blueprint": "mlp16", "decision": "theirs"}),
        ("germinate", {"slot": "0#0", "blueprint": "mlp16"}),
        ("set_alpha", {"slot": "0#0", "alpha": "high"}),
        ("prune", {"slot": "0#0"}),
        ("wait", {}),
    ]
    ids: list[str] = []

    def ask() -> None:
        for name, args in wanted:
            ids.append(bus.send(target("far"), name, args, run="far"))
            time.sleep(0.05)

    def outcomes() -> dict[str, CommandFinished]:
        return {
            event.command_id: event
            for seen in bus.events(family="outcome")
            if isinstance(event := seen.event, CommandFinished)
        }

    asking = threading.Thread(target=ask)
    asking.start()

    def all_done() -> bool:
        one.epochs(1, lambda loss: grower.epoch(train_loss=loss))
        return len(ids) == len(wanted) == len(outcomes())

    until(all_done)
    asking.join(20)
    run.flush()
    ended = outcomes()
    assert [ended[command].ok for command in ids] == [True, False, False, True, True]
    assert ended[ids[0]].result["seed"] == "0#0.1"
    assert "not to germinated" in (ended[ids[1]].error or "")
    assert "alpha must be a float" in (ended[ids[2]].error or "")
    grower.finish()
    run.finish()
    events = told(bus, "far")
    (germinated,) = [one_told for one_told in events if isinstance(one_told.event, SlotGerminated)]
    assert germinated.event.decision == "theirs"  # type: ignore[union-attr]
    outcomes_told = [one_told.event for one_told in events if isinstance(one_told.event, DecisionOutcome)]
    assert outcomes_told[0].decision == "theirs"
    assert not any(isinstance(one_told.event, DecisionVerdict) for one_told in events)
    assert len([one_told for one_told in events if isinstance(one_told.event, SlotRefused)]) == 1
    letters = [seen.event for seen in bus.events(family="dead") if isinstance(seen.event, DeadLetter)]
    assert {letter.name for letter in letters} == {"germinate", "set_alpha"}


def test_a_run_without_a_broker_trains_on(loop: Any, home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORPHOGEN_URL", "nats://127.0.0.1:9")
    one = loop()
    run = record("alone", settings=Settings.from_environ())
    grower = one.grow(run=run, policy="remote", budget=QUICK)
    one.epochs(2, lambda loss: grower.epoch(train_loss=loss))
    grower.finish()
    run.finish(timeout=0.1)
    assert grower.epochs == 2


def test_a_policy_in_another_place_decides_as_it_would_here(bus: Bus, loop: Any, settings: Settings) -> None:
    budget = {**QUICK, "max_active": 1}
    here, there = loop(), loop()
    run = record("here", settings=settings)
    grower = here.grow(run=run, policy="random", seed=5, budget=budget)
    here.epochs(8, lambda loss: grower.epoch(train_loss=loss, val_loss=0.5))
    grower.finish()
    run.finish()

    server = PolicyServer(bus.conn, lambda seed: load_policy("random", seed=seed), quiet=0.05)
    serving = bus.start(server.run())
    there = loop()
    run = record("there", settings=settings)
    grower = there.grow(run=run, policy="remote", seed=5, budget=budget, config={"remote_wait": 15.0})
    assert grower._inbox is not None
    assert grower._inbox.serving.wait(20)
    there.epochs(8, lambda loss: grower.epoch(train_loss=loss, val_loss=0.5))
    grower.finish()
    run.finish()
    serving.cancel()

    def deeds(name: str) -> list[tuple[str, str | None, str]]:
        return [
            (event.slot, event.seed, event.to_stage)
            for one_told in told(bus, name)
            if isinstance(event := one_told.event, SlotStageChanged)
        ]

    assert deeds("here") == deeds("there") != []
