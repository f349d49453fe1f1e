"""A seed that gives what is not finite, or explodes, or fails, is cut off in the same forward pass."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from morphogen.kernels.slots import Cutoff, Slot, SlotError, adapt

from .hosts import EVERY_SITE, batch, grow, host, same_bits


class Faulty(nn.Module):
    """A seed beside Linear(6, 3) that goes wrong when it is told to."""

    def __init__(self, fault: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.fault = fault
        self.armed = False

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return self.fault(y) if self.armed else y


def one_nan(y: Tensor) -> Tensor:
    return torch.where(torch.arange(y.numel()).reshape(y.shape) == 1, torch.nan, y)


def explode(y: Tensor) -> Tensor:
    return y * 1e9


def fail(y: Tensor) -> Tensor:
    raise ValueError("out of sorts\nand more")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def fail_without_a_word(y: Tensor) -> Tensor:
    raise Unspeakable


def faulty(
    fault: Callable[[Tensor], Tensor], stage: str, cutoff: Cutoff | None = None
) -> tuple[nn.Module, Slot, Faulty]:
    model = host("mlp").eval()
    slots = adapt(model, "0", example=batch("mlp"), cutoff=cutoff)
    seed = Faulty(fault)
    slot = slots["0#0"]
    slot.germinate(seed, blueprint="faulty")
    slot.to("training")
    if stage == "blending":
        slot.to("blending")
        slot.set_alpha(0.5)
    seed.armed = True
    return model, slot, seed


@pytest.mark.parametrize("stage", ["training", "blending"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (one_nan, "nonfinite: 1 of 12"),
        (lambda y: y * float("inf"), "nonfinite"),
        (explode, "exploding: root mean square"),
        (fail, "exception: ValueError: out of sorts"),
        (fail_without_a_word, "exception: Unspeakable: <"),
        (lambda y: y[:, :2], "shape: the seed gives [4, 2], the host [4, 3]"),
        (lambda y: y[:1], "shape"),
    ],
    ids=["nan", "inf", "exploding", "exception", "exception without text", "shape", "broadcast"],
)
def test_a_faulty_seed_is_cut_off_in_the_same_forward_pass(
    fault: Callable[[Tensor], Tensor], reason: str, stage: str
) -> None:
    model, slot, seed = faulty(fault, stage)
    twin, x = host("mlp").eval(), batch("mlp")
    given = model(x)

    assert same_bits(given, twin(x))
    assert slot.tripped is not None and reason in slot.tripped and "\n" not in slot.tripped
    given.sum().backward()
    twin(x).sum().backward()
    assert all(parameter.grad is None for parameter in slot.params())
    assert torch.equal(model[0].weight.grad, twin[0].weight.grad)  # type: ignore[index,arg-type,union-attr]
    seed.armed = False
    assert same_bits(model(x), twin(x)), "it stays off"
    assert slot.stage == stage and slot.seed is seed
    slot.to("pruned")
    assert slot.tripped is None


def test_the_bound_is_on_the_seed_over_the_host() -> None:
    x = batch("mlp")
    h = host("mlp")[0](x)  # type: ignore[index]
    for factor, trips in ((4.0, False), (6.0, True)):
        model, slot, _ = faulty(lambda y, factor=factor: h.detach() * factor, "blending", Cutoff(exploding=5.0))
        model(x)
        assert (slot.tripped is not None) == trips


def test_a_host_that_gives_zeros_or_no_numbers_cuts_nothing_off() -> None:
    for fill in (0.0, float("nan")):
        model, slot, _ = faulty(lambda y: y, "blending")
        with torch.no_grad():
            model[0].weight.fill_(fill)  # type: ignore[index,union-attr,operator]
            model[0].bias.fill_(fill)  # type: ignore[index,union-attr,operator]
        model(batch("mlp"))
        assert slot.tripped is None


def test_without_a_cutoff_the_host_is_still_exact_while_a_seed_trains() -> None:
    x = batch("mlp")
    model, slot, _ = faulty(one_nan, "training", Cutoff(enabled=False))
    assert same_bits(model(x), host("mlp").eval()(x))
    assert slot.tripped is None

    model, slot, _ = faulty(one_nan, "blending", Cutoff(enabled=False))
    assert model(x).isnan().any()


def test_an_empty_batch_and_half_precisions_are_no_fault() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        model = nn.Sequential(nn.Linear(64, 64)).to(dtype)
        slots = adapt(model, example=torch.zeros(1, 64, dtype=dtype))
        slots["0#0"].germinate(nn.Linear(64, 64), blueprint="linear")
        for stage in ("training", "blending"):
            slots["0#0"].to(stage)
        slots["0#0"].set_alpha(1.0)
        model(torch.full((512, 64), 300.0, dtype=dtype))  # the sum of its squares is above what float16 holds
        model(torch.zeros(0, 64, dtype=dtype))
        assert slots["0#0"].tripped is None


@pytest.mark.parametrize(("name", "site"), EVERY_SITE)
def test_at_every_site_a_poisoned_seed_is_cut_off(name: str, site: str) -> None:
    model, twin, x = host(name).eval(), host(name).eval(), batch(name)
    slot = grow(adapt(model, example=x), site, alpha=0.5)
    with torch.no_grad():
        slot.params()[0].fill_(float("nan"))

    assert same_bits(model(x), twin(x))
    assert slot.tripped is not None and slot.tripped.startswith("nonfinite")


def test_a_cutoff_without_bounds_is_refused() -> None:
    for wrong in ({"exploding": 0.0}, {"exploding": float("nan")}, {"floor": -1.0}):
        with pytest.raises(SlotError, match="above 0"):
            Cutoff(**wrong)
