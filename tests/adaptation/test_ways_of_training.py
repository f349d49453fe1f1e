"""Growth in loops of every kind: mixed precision, compiled models, closures, accumulated gradients, schedulers, clipping.

Each loop lets one seed live from germination to fossil. What cannot be trained so is refused in one line.
"""

import math
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from morphogen.consumers.adaptation import GrowthError
from morphogen.kernels.slots import fuse
from morphogen.schemas import (
    AlertRaised,
    DecisionOutcome,
    HostRestored,
    SlotContribution,
    SlotFailed,
    SlotGerminated,
    SlotHealth,
    SlotRefused,
    vector,
)

BUDGET = {"min_training": 1, "cooldown": 1, "earliest": 0, "min_contribution": -1e9}
PLAN = [(1, "0", "mlp16")]

Step = Callable[[Any, Callable[[], torch.Tensor], int], float]
"""Takes one step of a loop, given what computes the loss and the number of the batch."""


def plain(one: Any, loss_of: Callable[[], torch.Tensor], number: int) -> float:
    one.optimizer.zero_grad()
    loss = loss_of()
    loss.backward()  # type: ignore[no-untyped-call]
    one.optimizer.step()
    return loss.item()


def with_closure(one: Any, loss_of: Callable[[], torch.Tensor], number: int) -> float:
    def closure() -> torch.Tensor:
        one.optimizer.zero_grad()
        loss = loss_of()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    return one.optimizer.step(closure).item()  # type: ignore[no-any-return]


def in_bfloat16(one: Any, loss_of: Callable[[], torch.Tensor], number: int) -> float:
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of()
    one.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    one.optimizer.step()
    return loss.item()


def scaled(one: Any, loss_of: Callable[[], torch.Tensor], number: int) -> float:
    with torch.autocast("cpu", torch.float16):
        loss = loss_of()
    one.optimizer.zero_grad()
    one.scaler.scale(loss).backward()
    one.scaler.unscale_(one.optimizer)
    nn.utils.clip_grad_norm_(one.model.parameters(), 1.0)
    one.scaler.step(one.optimizer)
    one.scaler.update()
    return loss.item()


def accumulated(one: Any, loss_of: Callable[[], torch.Tensor], number: int) -> float:
    loss = loss_of()
    (loss / 2).backward()  # type: ignore[no-untyped-call]
    if number % 2:
        one.optimizer.step()
        one.optimizer.zero_grad()
    return loss.item()


def clipped(one: Any, loss_of: Callable[[], torch.Tensor], number: int) -> float:
    one.optimizer.zero_grad()
    loss = loss_of()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(one.model.parameters(), 0.5)
    nn.utils.clip_grad_value_(one.model.parameters(), 0.1)
    one.optimizer.step()
    return loss.item()


def train(
    one: Any, grower: Any, step: Step, epochs: int, model: Any = None, after: Callable[[float], Any] = id
) -> None:
    """Train the loop's model, or what stands for it, and end each epoch."""
    model = one.model if model is None else model
    inputs, targets = one.train
    for _ in range(epochs):
        model.train()
        loss = 0.0
        for number, batch in enumerate(torch.randperm(len(inputs)).split(24)):
            loss = step(
                one,
                lambda batch=batch: nn.functional.cross_entropy(model(inputs[batch]).float(), targets[batch]),
                number,
            )
        if grower is not None:
            grower.epoch(train_loss=loss)
        after(loss)


def lived(one: Any, grower: Any) -> None:
    """Assert that the seed went the whole way, undisturbed, and that the model is whole without us."""
    grower.finish()

    assert not one.run.all(SlotFailed) and not one.run.all(SlotRefused) and not one.run.all(AlertRaised)
    assert not one.run.all(HostRestored)
    assert grower.slots["0#0"].stage == "fossilized"
    assert one.run.all(SlotContribution) and all(
        math.isfinite(event.loss_with) and math.isfinite(event.loss_without) for event in one.run.all(SlotContribution)
    )
    assert [event.stage for event in one.run.all(DecisionOutcome)][-1] == "fossilized"
    held = {id(p) for group in one.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in one.model.parameters()}
    assert all(bool(p.detach().any()) for p in grower.slots["0#0"].params()), "its last layer began as zeros"
    one.model.eval()
    output = one.model(one.validation[0])
    assert torch.isfinite(output).all()
    torch.testing.assert_close(fuse(one.model)(one.validation[0]), output)


def grown(one: Any, **options: Any) -> Any:
    given = {"policy": "fixed", "budget": BUDGET, "config": {"auto": True, "ramp_epochs": 1.0}, **options}
    if given["policy"] == "fixed":
        from morphogen.consumers.policy import load_policy

        given["policy"] = load_policy("fixed", plan=PLAN)
    return one.grow(**given)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "Adam": lambda params: torch.optim.Adam(params, 1e-2),
    "AdamW, fused": lambda params: torch.optim.AdamW(params, 1e-2, fused=True),
    "SGD with momentum": lambda params: torch.optim.SGD(params, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "RMSprop": lambda params: torch.optim.RMSprop(params, 1e-2, foreach=True),
    "Adagrad": lambda params: torch.optim.Adagrad(params, 1e-2),
    "NAdam": lambda params: torch.optim.NAdam(params, 1e-2),
    "Rprop": lambda params: torch.optim.Rprop(params, 1e-3),
    "ASGD": lambda params: torch.optim.ASGD(params, 1e-2),
    "Adafactor": lambda params: torch.optim.Adafactor(params, 1e-2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("step", [plain, with_closure], ids=["plain", "closure"])
def test_a_seed_lives_with_every_optimizer_with_and_without_a_closure(loop: Any, name: str, step: Step) -> None:
    one = loop()
    one.optimizer = OPTIMIZERS[name](one.model.parameters())
    grower = grown(one)
    train(one, grower, step, 9)
    lived(one, grower)


def test_lbfgs_is_refused_in_one_line_and_without_growth_it_trains_as_without_us(loop: Any) -> None:
    weights = []
    for recorded in (False, True):
        one = loop()
        one.optimizer = torch.optim.LBFGS(one.model.parameters(), lr=0.01, max_iter=3)
        if not recorded:
            train(one, None, with_closure, 4)
        else:
            with pytest.raises(GrowthError, match="LBFGS keeps one state for all") as caught:
                grown(one)
            assert "\n" not in str(caught.value)
            grower = grown(one, policy="none")
            train(one, grower, with_closure, 4)
            grower.finish()
        weights.append(one.state())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("step", [in_bfloat16, scaled, accumulated, clipped], ids=lambda step: step.__name__)
def test_a_seed_lives_in_mixed_precision_with_accumulated_and_with_clipped_gradients(loop: Any, step: Step) -> None:
    one = loop()
    one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    grower = grown(one)
    train(one, grower, step, 9)
    lived(one, grower)


def test_a_scaler_that_skips_a_step_is_not_taken_for_a_poisoned_seed(loop: Any) -> None:
    one = loop()
    one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**80, growth_interval=10**6)  # overflows at first
    skipped = []

    def step(one: Any, loss_of: Callable[[], torch.Tensor], number: int) -> float:
        before = one.scaler.get_scale()
        value = scaled(one, loss_of, number)
        skipped.append(one.scaler.get_scale() < before)
        if len(skipped) == 20:  # in the middle of the seed's life
            one.scaler.update(2.0**80)
        return value

    grower = grown(one)
    train(one, grower, step, 16, after=lambda loss: None)
    assert any(skipped[:20]) and any(skipped[20:])
    assert not one.run.all(SlotFailed) and not one.run.all(HostRestored)
    assert len(one.run.all(SlotGerminated)) == 1
    grower.finish()


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "OneCycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=40),
    "ReduceLROnPlateau": lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1),
    "CosineAnnealing": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40),
    "LambdaLR": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.95**step),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_does_not_notice_that_the_model_grows(loop: Any, name: str) -> None:
    rates: list[list[float]] = []
    for grows in (False, True):
        one = loop()
        scheduler = SCHEDULERS[name](one.optimizer)
        losses = iter([1.0, 0.9, *[0.9] * 40])
        found: list[float] = []

        def after(
            _: float, scheduler: Any = scheduler, losses: Any = losses, one: Any = one, found: Any = found
        ) -> None:
            scheduler.step(next(losses)) if name == "ReduceLROnPlateau" else scheduler.step()
            found.append(one.optimizer.param_groups[0]["lr"])

        grower = grown(one, policy="fixed" if grows else "none")
        train(one, grower, plain, 9, after=after)
        if grows:
            lived(one, grower)
        rates.append(found)
        assert len(one.optimizer.param_groups) == 1
    assert rates[0] == rates[1] and len(set(rates[0])) > 2


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler's own parts
        yield
    torch.compiler.reset()


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("handed", ["the model", "the compiled model"])
def test_a_seed_lives_in_a_compiled_model(loop: Any, backend: str, handed: str, fresh_compiler: None) -> None:
    if backend == "inductor":
        pytest.importorskip("torch._inductor")
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except Exception as error:  # noqa: BLE001
            pytest.skip(f"inductor needs a C++ compiler here: {error}")
        if handed == "the model":
            pytest.skip("one way of handing it over is enough for the slow backend")
    one = loop()
    compiled = torch.compile(one.model, backend=backend)
    if handed == "the compiled model":
        inner, one.model = one.model, compiled
        grower = grown(one)
        one.model = inner
    else:
        grower = grown(one)
    counters.clear()
    train(one, grower, plain, 9, model=compiled)
    assert counters["stats"]["unique_graphs"] >= 2, "the graph was made anew as the model grew"
    lived(one, grower)
    one.model.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(one.validation[0]), one.model(one.validation[0]), rtol=1e-4, atol=1e-5)


def test_what_is_no_optimizer_is_refused_in_one_line(loop: Any) -> None:
    one = loop()
    for wrong in (None, "adam", object()):
        one.optimizer = wrong
        with pytest.raises(GrowthError, match="an optimizer of torch is expected") as caught:
            grown(one)
        assert "\n" not in str(caught.value)


def fused_and_scaled(one: Any, loss_of: Callable[[], torch.Tensor], number: int) -> float:
    """The loop of torch's own recipe: a fused optimizer takes the scale out of the gradients, or passes over the step."""
    with torch.autocast("cpu", torch.float16):
        loss = loss_of()
    one.optimizer.zero_grad()
    if number == 1:
        one.scaler.update(2.0**127)  # overflows
    one.scaler.scale(loss).backward()
    one.scaler.step(one.optimizer)
    one.scaler.update()
    if number == 1:
        one.scaler.update(2.0**16)
    return loss.item()


def test_a_seed_lives_with_a_fused_optimizer_that_unscales_by_itself(loop: Any) -> None:
    one = loop()
    one.optimizer = torch.optim.AdamW(one.model.parameters(), 1e-2, fused=True)
    one.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=10**6)
    grower = grown(one, config={"auto": True, "ramp_epochs": 1.0, "strikes": 1})
    train(one, grower, fused_and_scaled, 12)
    norms = [
        value for event in one.run.all(SlotHealth) if event.grad_norm is not None for value in vector(event.grad_norm)
    ]
    assert norms and max(norms) < 100, "of the gradients as they are, not as they were scaled"
    grower.finish()
    assert grower.slots["0#0"].stage == "fossilized"
    assert not one.run.all(SlotFailed) and not one.run.all(HostRestored), "a step that overflows is nobody's fault"


RANKS = """
import sys, torch
from torch import distributed, nn
import morphogen.consumers.adaptation as adaptation

class Recorder:
    def event(self, event, *, step=None, cause=None):
        print(type(event).__name__)

def main(rank, file):
    distributed.init_process_group("gloo", rank=rank, world_size=2, init_method=f"file://{file}")
    model = nn.Sequential(nn.Linear(6, 2), nn.ReLU(), nn.Linear(2, 4))
    optimizer = torch.optim.Adam(model.parameters())
    try:
        adaptation.grow(Recorder(), model, optimizer, example=torch.ones(2, 6))
    except adaptation.GrowthError as error:
        print("refused:", error)
    adaptation.grow(Recorder(), model, optimizer, example=torch.ones(2, 6), policy="none").finish()
    distributed.destroy_process_group()

main(int(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
def test_among_ranks_growth_is_refused_for_their_copies_would_come_apart(tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(RANKS)
    command = [sys.executable, str(tmp_path / "ranks.py")]
    both = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meet")], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    try:
        told = [one.communicate(timeout=120)[0].splitlines() for one in both]
    finally:
        for one in both:
            one.kill()
    for lines in told:
        assert lines[0].startswith("refused: this is one of 2 ranks")
        assert "AdaptationStarted" in lines, "without growth a rank is recorded as any run"
