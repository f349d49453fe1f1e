"""Whatever a seed does, it is cut off in the same step, the host is whole, and the training goes on."""

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

from morphogen.consumers.executor import stock
from morphogen.consumers.executor.snapshot import Snapshot
from morphogen.kernels import blueprints
from morphogen.kernels.slots import Stage, fuse
from morphogen.schemas import (
    Action,
    AlertRaised,
    ArtifactQuarantined,
    BreakerChanged,
    HostRestored,
    SlotFailed,
    SlotRefused,
    SlotStageChanged,
)


def spoil(one: Any, value: float, slot: str = "0#0") -> None:
    """Have a seed give numbers that it should not."""
    with torch.no_grad():
        for p in one.slots[slot].params():
            p.fill_(value)


def finite(one: Any) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in one.model.state_dict().values())


@pytest.mark.parametrize(("value", "error"), [(math.nan, "nonfinite"), (math.inf, "nonfinite"), (1e9, "exploding")])
@pytest.mark.parametrize("stage", ["training", "blending", "holding"])
def test_a_seed_that_goes_wrong_is_cut_off_in_the_same_step(story: Any, value: float, error: str, stage: str) -> None:
    one = story(norm=True, config={"ramp_epochs": 3.0 if stage == "blending" else 1.0})
    if stage == "training":
        one.epoch(Action(op="germinate", slot="0#0", blueprint="mlp16"))
    else:
        one.grown(stage=stage)
    one.step()
    spoil(one, value)
    loss = one.step()
    assert math.isfinite(loss)
    assert finite(one)
    assert one.slots["0#0"].stage == Stage.EMBARGOED
    (failed,) = one.said(SlotFailed)
    assert (failed.error, failed.recovery, failed.recovered) == (error, "cut", True)
    assert next(event for event in one.said(SlotStageChanged) if event.to_stage == "pruned").initiator == "governor"
    for _ in range(3):
        assert math.isfinite(one.step())
    one.epoch()
    assert one.clean()


def test_the_host_goes_back_to_its_last_good_state_with_buffers_and_optimizer(story: Any) -> None:
    one = story(norm=True)
    one.grown(stage="holding")
    good = {name: value.clone() for name, value in one.model.state_dict().items() if "grown" not in name}
    own = [p for p in one.model[0].parameters() if p.shape == (4, 6)]
    momentum = one.optimizer.state[own[0]]["exp_avg"].clone()
    one.step()
    assert not torch.equal(one.model.state_dict()["0.weight"], good["0.weight"])
    spoil(one, math.nan)
    one.step()
    state = one.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in good.items())
    assert torch.equal(one.optimizer.state[own[0]]["exp_avg"], momentum)
    (restored,) = one.said(HostRestored)
    assert restored.slots == ["0#0"]
    assert restored.decision == "d0"


def test_a_seed_that_is_not_to_blame_keeps_its_alpha_where_the_host_goes_back(story: Any) -> None:
    one = story(slots=2)
    one.grown("2#0")
    assert one.epoch(Action(op="germinate", slot="0#0", blueprint="mlp16")) == [True]
    assert one.epoch(Action(op="advance", slot="0#0")) == [True]
    for _ in range(3):
        one.step()
    kept = one.slots["0#0"]
    assert kept.stage == Stage.BLENDING and kept.alpha == 1.0
    spoil(one, math.nan, "2#0")
    one.step()
    assert len(one.said(HostRestored)) == 1
    assert one.slots["2#0"].stage == Stage.EMBARGOED
    assert kept.alpha == float(kept.graft.alpha) == 1.0
    assert torch.allclose(fuse(one.model)(one.inputs), one.model(one.inputs))
    one.epoch(Action(op="advance", slot="0#0"))
    assert kept.stage == Stage.HOLDING and one.executor.states["0#0"].alpha == kept.alpha


def test_a_seed_without_a_say_is_cut_and_the_host_trains_on_as_if_it_had_never_been(story: Any) -> None:
    one, bare = story(norm=True), story(norm=True)
    one.epoch(Action(op="germinate", slot="0#0", blueprint="mlp16"))
    bare.epoch()
    spoil(one, math.nan)
    one.epoch(), bare.epoch()
    assert one.said(HostRestored) == []
    state = one.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in bare.model.state_dict().items())
    assert one.clean()


def test_poisoned_gradients_of_a_seed_are_not_followed(story: Any) -> None:
    one = story()
    one.grown(stage="holding")
    before = [p.clone() for p in one.model.parameters()]
    one.slots["0#0"].params()[0].register_hook(lambda grad: grad * math.nan)
    one.step()
    assert finite(one)
    assert one.slots["0#0"].stage == Stage.EMBARGOED
    assert one.said(SlotFailed)[0].error == "nonfinite"
    assert len(before) > len(list(one.model.parameters()))


def test_a_batch_that_poisons_everything_is_passed_over_and_no_seed_is_blamed(story: Any) -> None:
    one = story()
    one.grown(stage="holding")
    weights = [p.detach().clone() for p in one.model.parameters()]
    good = one.inputs
    one.inputs = good * math.nan
    one.step()
    assert one.said(SlotFailed) == []
    assert all(torch.equal(p, before) for p, before in zip(one.model.parameters(), weights, strict=True))
    assert all(p.grad is not None for p in one.model.parameters())  # zeros, for programs that look at them
    one.inputs = good
    assert math.isfinite(one.step())
    assert one.slots["0#0"].stage == Stage.HOLDING


def test_steps_that_stay_poisoned_cut_the_seeds_that_have_a_say_and_restore_the_host(story: Any) -> None:
    one = story(config={"strikes": 3})
    one.grown(stage="holding")
    one.inputs = one.inputs * math.nan
    for _ in range(3):
        one.step()
    assert one.slots["0#0"].stage == Stage.EMBARGOED
    assert finite(one)
    assert len(one.said(HostRestored)) == 1


def test_the_own_fault_of_a_host_is_left_to_the_host(story: Any) -> None:
    one, bare = story(), story()
    one.epoch(Action(op="germinate", slot="0#0", blueprint="mlp16"))
    bare.epoch()
    for which in (one, bare):
        which.inputs = which.inputs * math.nan
        which.step()
    assert torch.isnan(one.model[0].weight).all() == torch.isnan(bare.model[0].weight).all()
    assert one.said(SlotFailed) == []
    assert all(bool(torch.isfinite(p).all()) for p in one.slots["0#0"].params())


def test_a_loss_that_explodes_takes_the_host_back_and_cuts_what_has_a_say(story: Any) -> None:
    one = story()
    one.grown(stage="holding")
    one.epoch()
    one.epoch(val_loss=1e6)
    (restored,) = one.said(HostRestored)
    assert restored.reason == "exploding"
    assert restored.threshold < restored.loss == 1e6
    assert one.slots["0#0"].stage != Stage.HOLDING


def test_a_copy_that_is_not_good_never_replaces_the_last_good_one(story: Any) -> None:
    one = story()
    with torch.no_grad():
        one.model[0].weight[0, 0] = math.nan
    assert Snapshot.take(one.model, one.optimizer, 0) is None


def test_a_copy_brings_back_parameters_buffers_and_state_in_place(story: Any) -> None:
    one = story(norm=True)
    one.step()
    snapshot = Snapshot.take(one.model, one.optimizer, 1)
    assert snapshot is not None
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    places = [p.data_ptr() for p in one.model.parameters()]
    for _ in range(3):
        one.step()
    assert snapshot.restore(one.optimizer)
    assert all(torch.equal(value, before[name]) for name, value in one.model.state_dict().items())
    assert [p.data_ptr() for p in one.model.parameters()] == places
    first = next(iter(one.model.parameters()))
    assert float(one.optimizer.state[first]["step"]) == 1


def test_a_fossilized_seed_goes_back_with_the_host_and_stays(story: Any) -> None:
    one = story()
    one.grown(stage="fossilized")
    spoil(one, math.nan)
    assert math.isfinite(one.step())
    assert one.slots["0#0"].stage == Stage.FOSSILIZED
    assert finite(one)
    assert one.slots["0#0"].tripped is None
    (failed,) = one.said(SlotFailed)
    assert (failed.recovery, failed.recovered) == ("rollback", True)
    assert math.isfinite(one.step())


def test_a_fossilized_seed_that_does_not_come_right_is_off_for_good_and_a_person_is_told(story: Any) -> None:
    one = story(config={"strikes": 1})
    one.grown(stage="fossilized")
    for _ in range(4):
        spoil(one, math.nan)
        assert math.isfinite(one.step())
    assert [event.severity for event in one.said(AlertRaised)] == ["critical"]
    assert one.slots["0#0"].tripped is not None


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("a seed of bad will\nwith a second line")


def test_a_seed_that_raises_in_the_forward_pass_is_cut_off(story: Any) -> None:
    one = story()
    one.grown(stage="holding")
    graft = one.slots["0#0"].graft
    graft.seed = Broken()
    assert math.isfinite(one.step())
    assert one.slots["0#0"].stage == Stage.EMBARGOED
    assert one.said(SlotFailed)[0].error == "exception"
    assert "\n" not in one.said(SlotFailed)[0].message


def broken(one: Any, fails: int, error: Exception) -> list[int]:
    """Have the first `fails` makings of every item of the menu fail."""
    calls: list[int] = []

    def make(item: Any) -> Any:
        original = item.make

        class Fails(type(item)):  # type: ignore[misc]
            def make(self, seed: int, *, zero_last: bool = True) -> nn.Module:
                calls.append(seed)
                if len(calls) <= fails:
                    raise error
                return original(seed, zero_last=zero_last)  # type: ignore[no-any-return]

        return Fails(**{name: getattr(item, name) for name in item.__dataclass_fields__})

    one.executor.stock = {
        site: {name: make(item) for name, item in items.items()} for site, items in one.executor.stock.items()
    }
    return calls


def test_a_load_that_fails_is_tried_again_and_counts_as_recovered_only_when_it_then_worked(story: Any) -> None:
    from morphogen.consumers.executor import LoadError

    one = story()
    broken(one, 2, LoadError("disk away"))
    assert one.epoch(Action(op="germinate", slot="0#0", blueprint="mlp16")) == [True]
    assert [(event.attempt, event.recovered, event.recovery) for event in one.said(SlotFailed)] == [
        (1, True, "retry"),
        (2, True, "retry"),
    ]
    assert one.slept == [0.05, 0.2]

    two = story()
    broken(two, 99, LoadError("disk away"))
    assert two.epoch(Action(op="germinate", slot="0#0", blueprint="mlp16")) == [False]
    assert [event.recovered for event in two.said(SlotFailed)] == [False, False, False]
    assert two.clean()


def test_a_blueprint_that_fails_too_often_is_put_into_quarantine_and_the_breaker_opens_and_closes(story: Any) -> None:
    from morphogen.consumers.executor import LoadError

    one = story(config={"quarantine_after": 2, "breaker_failures": 3, "breaker_epochs": 2, "retries": 0})
    working = one.executor.stock
    broken(one, 99, LoadError("rotten"))
    for name in ("mlp16", "mlp16", "mlp16", "rank1"):
        one.epoch(Action(op="germinate", slot="0#0", blueprint=name))
    (quarantined,) = one.said(ArtifactQuarantined)
    assert quarantined.blueprint == working["0"]["mlp16"].address
    assert "quarantine" in one.said(SlotRefused)[2].reason
    assert [(event.from_state, event.to_state) for event in one.said(BreakerChanged)] == [("closed", "open")]
    one.executor.stock = working
    assert one.epoch(Action(op="germinate", slot="0#0", blueprint="rank1")) == [False]
    assert "breaker" in one.said(SlotRefused)[-1].reason
    assert one.epoch(Action(op="germinate", slot="0#0", blueprint="rank1")) == [True]  # half open: one try
    assert one.epoch(Action(op="germinate", slot="2#0", blueprint="rank1")) == [True]  # it lived: closed
    assert [event.to_state for event in one.said(BreakerChanged)] == ["open", "half_open", "closed"]
    assert one.said(AlertRaised)


def test_an_artifact_that_was_changed_is_refused_without_a_second_try(story: Any, tmp_path: Path) -> None:
    bare = story()
    blueprint = blueprints.menu(bare.slots.sites[0])["mlp16"]
    path = tmp_path / "seed.safetensors"
    blueprints.save(path, blueprint, blueprints.build(blueprint, seed=1, zero_last=False))
    one = story(menu={"mine": path})
    assert set(one.executor.stock["0"]) == {"mine"}
    assert one.executor.stock["2"] == {}
    one.executor.stock = stock(one.slots.sites, {"mine": path}, room=0)  # nothing of it is kept in memory
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert one.epoch(Action(op="germinate", slot="0#0", blueprint="mine")) == [False]
    (failed,) = one.said(SlotFailed)
    assert (failed.error, failed.recovered, failed.attempt) == ("checksum", False, 1)
    path.unlink()
    assert one.epoch(Action(op="germinate", slot="0#0", blueprint="mine")) == [False]
    assert one.clean()


def test_an_artifact_is_read_once_and_what_becomes_of_its_file_is_no_matter(story: Any, tmp_path: Path) -> None:
    bare = story()
    blueprint = blueprints.menu(bare.slots.sites[0])["mlp16"]
    path = tmp_path / "seed.safetensors"
    blueprints.save(path, blueprint, blueprints.build(blueprint, seed=1, zero_last=False))
    one = story(menu={"mine": path, "again": path})
    path.unlink()
    item = one.executor.stock["0"]["mine"]
    first, second = item.make(0), item.make(1)
    assert one.epoch(Action(op="germinate", slot="0#0", blueprint="mine")) == [True]
    assert item.cache is one.executor.stock["0"]["again"].cache
    stats = item.cache.stats()
    assert (stats.misses, stats.hits, stats.entries) == (1, 3, 1)
    pairs = list(zip(first.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in pairs), "each seed has its own weights"


def test_a_seed_grows_from_the_weights_of_an_artifact(story: Any, tmp_path: Path) -> None:
    bare = story()
    blueprint = blueprints.menu(bare.slots.sites[0])["mlp16"]
    module = blueprints.build(blueprint, seed=1, zero_last=False)
    path = tmp_path / "seed.safetensors"
    blueprints.save(path, blueprint, module)
    one = story(menu={"mine": path})
    assert one.epoch(Action(op="germinate", slot="0#0", blueprint="mine")) == [True]
    pairs = zip(one.slots["0#0"].params(), module.parameters(), strict=True)
    assert all(torch.equal(p, other) for p, other in pairs)


def test_a_seed_that_does_not_fit_is_taken_back_whole(story: Any) -> None:
    one = story(config={"retries": 0})
    item = one.executor.stock["0"]["mlp16"]

    class Wrong(type(item)):  # type: ignore[misc]
        def make(self, seed: int, *, zero_last: bool = True) -> nn.Module:
            return nn.Linear(6, 5)

    wrong = Wrong(**{name: getattr(item, name) for name in item.__dataclass_fields__})
    one.executor.stock = {"0": {"mlp16": wrong}}
    assert one.epoch(Action(op="germinate", slot="0#0", blueprint="mlp16")) == [False]
    (failed,) = one.said(SlotFailed)
    assert (failed.error, failed.recovery, failed.recovered) == ("shape", "fallback", True)
    assert one.clean()
    assert one.slots["0#0"].stage == Stage.DORMANT


def test_an_optimizer_that_cannot_take_a_seed_leaves_the_model_as_it_was(story: Any) -> None:
    one = story(optimizer=lambda params: torch.optim.LBFGS(params))
    applied = one.executor.apply(Action(op="germinate", slot="0#0", blueprint="mlp16"))
    assert not applied.done
    assert "LBFGS" in applied.reason
    assert one.slots["0#0"].stage == Stage.DORMANT
    assert all(type(module).__module__.startswith("torch.nn") for module in one.model.modules())


def test_an_error_of_our_own_inside_a_step_does_not_reach_the_training_loop(
    story: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = story()
    one.grown(stage="holding")

    def fails(*args: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(one.executor._sentinel, "_drop", fails)
    monkeypatch.setattr(one, "_say", fails)
    one.executor._bed._say = fails
    spoil(one, math.nan)
    for _ in range(3):
        assert math.isfinite(one.step())
    assert any("guard of the optimizer's steps is off" in message for message in caplog.messages)


def test_every_event_of_trouble_can_be_written_and_read(story: Any) -> None:
    one = story()
    one.grown(stage="holding")
    spoil(one, math.nan)
    one.step()
    for event in one.events:
        assert msgspec.msgpack.decode(event.encode())


class Masked(nn.Module):
    """A mask of infinities as a buffer, as causal attention has it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("mask", torch.full((2, 2), -math.inf).triu(1))
        self.register_buffer("scale", torch.ones(2).to(torch.float8_e4m3fn))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) @ self.mask.softmax(-1)


def test_a_host_that_holds_infinities_by_itself_goes_back_to_its_last_good_state_too(story: Any) -> None:
    one = story()
    one.model[2] = Masked(one.model[2])
    one.grown()
    before = {name: value.clone() for name, value in one.model.state_dict().items() if "grown" not in name}
    spoil(one, math.nan)
    assert math.isfinite(one.step())
    assert one.slots["0#0"].stage == Stage.EMBARGOED
    assert len(one.said(HostRestored)) == 1 and one.said(AlertRaised) == []
    after = one.model.state_dict()
    assert all(torch.equal(after[name].float(), value.float()) for name, value in before.items())


def test_infinities_that_a_seed_has_brought_are_no_good_state(story: Any) -> None:
    one = story(norm=True)
    one.grown()
    one.epoch()
    good = one.model[1].running_var.clone()
    one.model[1].running_var.fill_(math.inf)
    one.executor.rest()
    spoil(one, math.nan)
    one.step()
    assert len(one.said(HostRestored)) == 1
    assert torch.equal(one.model[1].running_var, good)


def test_where_there_are_no_good_weights_to_go_back_to_a_person_is_told(story: Any) -> None:
    one = story()
    one.model.register_parameter("ill", nn.Parameter(torch.tensor(math.nan)))
    one.grown()
    spoil(one, math.nan)
    one.step()
    assert one.said(HostRestored) == []
    (alert,) = one.said(AlertRaised)
    assert alert.severity == "critical" and "no good weights" in alert.message


class Steep(nn.Module):
    """Gives good numbers, and gradients that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 4))
        self.steep = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given = x @ self.weight
        return given + (given * 0).abs().sqrt() if self.steep else given


def test_a_fossilized_seed_whose_gradients_stay_poisoned_is_off_for_good(story: Any) -> None:
    one = story(config={"strikes": 1})
    one.grown(stage="fossilized")
    seed = Steep()
    one.slots["0#0"].graft.seed = seed
    one.optimizer.add_param_group({"params": [seed.weight]})
    one.executor.rest()
    seed.steep = True
    for _ in range(5):
        one.step()
    assert finite(one), "nothing of it reaches the host any more"
    assert one.slots["0#0"].tripped is not None
    assert [event.severity for event in one.said(AlertRaised)] == ["critical"]
    without = [float(p.detach().sum()) for p in one.model[0].parameters()]
    one.step()
    assert [float(p.detach().sum()) for p in one.model[0].parameters()] != without, "the host trains on"


def test_what_a_seed_says_when_it_raises_can_be_written_whatever_it_says(story: Any) -> None:
    one = story()
    one.grown()

    def raises(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("half a pair: \udc80")

    one.slots["0#0"].seed.forward = raises
    one.step()
    refused = one.epoch(Action(op="prune", slot="\udc80"))
    assert refused == [False]
    assert "half a pair" in one.said(SlotFailed)[0].message
    for event in (*one.said(SlotFailed), *one.said(SlotRefused)):
        event.encode()
