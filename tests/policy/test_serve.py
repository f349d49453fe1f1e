"""A policy as a process of its own: it hears of a run through a real broker and answers with commands."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from morphogen.bus import Bus, Settings
from morphogen.bus.broker import Endpoint
from morphogen.consumers.policy import Observation, load_policy
from morphogen.consumers.policy.serve import PolicyServer
from morphogen.producers import record
from morphogen.schemas import (
    AdaptationFinished,
    CommandIssued,
    DecisionProposed,
    DecisionVerdict,
    EpochMeasured,
    Observed,
    SlotGerminated,
)

from .remote import Remote, Serving


def test_a_served_policy_sends_its_decisions_as_commands_and_tells_the_log_why(
    remote: Callable[..., Remote], settings: Settings
) -> None:
    with Bus.open(settings) as bus:
        serving = Serving(bus, "heuristic")
        run, other = remote("far"), remote("near", policy="heuristic")
        for at in range(3):
            run.epoch(plateau=at == 2)
            other.epoch()
            serving.wait(at + 1)

        assert {served.run for served in serving.served} == {"far"}
        ops = [served.decided.action.op for served in serving.served]
        assert ops == ["wait", "wait", "germinate"]
        seen = list(bus.events(run="far", family=("adaptation", "decision", "command")))
        commands = {one.event.command_id: one for one in seen if isinstance(one.event, CommandIssued)}
        last = serving.served[-1]
        command = commands[last.command].event
        assert isinstance(command, CommandIssued)
        assert (command.target, command.name) == ("adapt.far", "germinate")
        assert command.args == {"slot": "layers.0#0", "blueprint": "mlp16", "decision": last.decided.decision}
        by_id = {one.id: one for one in seen}
        chain = [commands[last.command]]
        while chain[-1].record.cause is not None:
            chain.append(by_id[chain[-1].record.cause])
        kinds = [type(one.event) for one in chain]
        assert kinds == [CommandIssued, DecisionVerdict, DecisionProposed, Observed, EpochMeasured]
        observed = chain[3].event
        assert isinstance(observed, Observed)
        assert Observation.of(observed).sha256 == observed.observation


def test_a_command_that_shows_no_effect_is_not_sent_again_at_once_and_an_effect_goes_on(
    remote: Callable[..., Remote], settings: Settings
) -> None:
    with Bus.open(settings) as bus:
        serving = Serving(bus, "heuristic")
        run = remote("far")
        run.epoch(plateau=False)
        serving.wait(1)
        run.epoch()
        serving.wait(2)
        run.epoch()
        time.sleep(0.5)
        assert len(serving.served) == 2
        decision = serving.served[-1].decided.decision
        run.run.event(
            SlotGerminated(slot="layers.0#0", seed="layers.0#0.1", blueprint="0", params=1, decision=decision)
        )
        run.epoch()
        serving.wait(3)
        assert serving.served[-1].decided.action.op == "advance"


def test_a_server_that_starts_late_decides_for_runs_that_stand_and_leaves_those_that_ended(
    remote: Callable[..., Remote], settings: Settings
) -> None:
    over, open_ = remote("over"), remote("open")
    for run in (over, open_):
        run.epoch()
        run.epoch()
    over.run.event(AdaptationFinished(epochs=2, germinated=0, fossilized=0, pruned=0, contributing=0, params_grown=0))
    over.run.flush()
    with Bus.open(settings) as bus:
        serving = Serving(bus, "heuristic")
        serving.wait(1)
        time.sleep(0.3)

        assert [(served.run, served.decided.observation.epoch) for served in serving.served] == [("open", 1)]
    with Bus.open(settings) as bus:
        again = Serving(bus, "heuristic")
        time.sleep(0.5)
        assert again.served == [], "what a server before it has decided is not decided again"


def test_serve_policy_is_a_verb_that_names_what_it_does_not_know(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from morphogen.cli.app import run

    assert run(["serve", "policy", "--policy", "clever"]) == 1
    assert "there is no policy 'clever'" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_policy_ends_in_order_when_it_is_told_to(settings: Settings, number: int) -> None:
    command = [sys.executable, "-m", "morphogen.cli", "serve", "policy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "decides for runs" in process.stdout.readline()
        process.send_signal(number)
        assert process.communicate(timeout=20) == ("", "")
        assert process.returncode == 0


def test_a_network_grows_by_the_commands_of_a_served_policy(settings: Settings, broker: Endpoint) -> None:
    import torch
    from torch import nn

    from morphogen.consumers.adaptation import grow

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 6, generator=generator)
    targets = (inputs[:, :1] * inputs[:, 1:2]).sign()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)

    def loss(net: nn.Module) -> torch.Tensor:
        return nn.functional.mse_loss(net(inputs), targets)

    def validate(net: nn.Module) -> tuple[float, None]:
        return loss(net).item(), None

    with Bus.open(settings) as bus, record("far", settings=settings) as run:
        server = PolicyServer(
            bus.conn, lambda seed: load_policy("fixed", seed=seed, plan=[(2, "0", "mlp16")]), quiet=0.05
        )
        bus.start(server.run())
        bus.run(asyncio.wait_for(server.ready.wait(), 20))
        grower = grow(
            run, model, optimizer, policy="remote", evaluate=validate, example=inputs[:2], config={"remote_wait": 10.0}
        )
        done = []
        for _ in range(12):
            for _ in range(3):
                optimizer.zero_grad()
                loss(model).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            run.log(loss=0.0)
            done.append(grower.epoch().op)
        grower.finish()
        run.flush()

        assert done[2] == "germinate"
        assert "advance" in done
        seen = list(bus.events(run="far", family=("decision", "slot")))
        proposed = {one.event.decision: one.event for one in seen if isinstance(one.event, DecisionProposed)}
        germinated = next(one.event for one in seen if isinstance(one.event, SlotGerminated))
        assert germinated.decision is not None
        assert proposed[germinated.decision].action.blueprint == "mlp16"
