"""Where a model can be grown, and what is refused, with a reason."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from morphogen.kernels.slots import SiteError, SlotError, Slots, adapt

from .hosts import HOSTS, batch, grow, host, same_bits


def test_sites_are_chosen_by_class_name_pattern_predicate_or_several_of_these() -> None:
    model = host("transformer")

    def names(sites: Any) -> list[str]:
        return [info.site for info in adapt(model, sites).sites]

    assert names(nn.LayerNorm) == [f"blocks.{i}.norm{j}" for i in (0, 1) for j in (1, 2)]
    assert names("blocks.1.up") == ["blocks.1.up"]
    assert names("blocks.*.down") == ["blocks.0.down", "blocks.1.down"]
    assert names(lambda name, module: isinstance(module, nn.Linear) and name.endswith("qkv")) == [
        "blocks.0.qkv",
        "blocks.1.qkv",
    ]
    assert names(["head", nn.LayerNorm, "blocks.0"])[0] == "blocks.0"
    assert names(["head", "head", nn.Linear]).count("head") == 1
    assert names(".") == ["."]


def test_slots_are_named_by_site_and_number() -> None:
    slots = adapt(host("mlp"), slots=2)

    assert list(slots) == ["0#0", "0#1", "2#0", "2#1", "5#0", "5#1"]
    assert slots["2#1"].site == "2" and slots["2#1"].number == 1
    with pytest.raises(KeyError, match="no slot is called"):
        slots["7#0"]
    with pytest.raises(SlotError, match="1 slot or more"):
        adapt(host("mlp"), slots=0)


def test_the_whole_model_can_be_a_site() -> None:
    x = batch("mlp")
    model = host("mlp").eval()
    before = model(x)
    slots = adapt(model, ".", example=x)
    grow(slots, ".", alpha=0.5)

    assert slots.model is model and not torch.equal(model(x), before)


@pytest.mark.parametrize("name", HOSTS)
def test_shapes_come_from_an_example_or_from_the_first_pass_alike(name: str) -> None:
    model = host(name)
    by_example = adapt(model, example=batch(name)).sites
    slots = adapt(model)
    assert all(info.in_shape is None for info in slots.sites)
    model(batch(name))

    assert slots.sites == by_example
    assert not any(module._forward_hooks for module in model.modules())


def test_kinds_and_shapes_leave_out_the_batch() -> None:
    cnn = {info.site: info for info in adapt(host("cnn"), example=batch("cnn")).sites}
    assert (cnn["stem.0"].kind, cnn["stem.0"].in_shape, cnn["stem.0"].out_shape) == ("image", [1, 8, 8], [4, 4, 4])
    assert (cnn["head"].kind, cnn["head"].in_shape, cnn["head"].out_shape) == ("features", [4], [10])
    block = adapt(host("transformer"), example=batch("transformer")).sites[0]
    assert (block.kind, block.in_shape, block.out_shape) == ("sequence", [5, 8], [5, 8])
    first = adapt(nn.TransformerEncoderLayer(8, 2, 16, batch_first=False), example=torch.randn(5, 2, 8)).sites[0]
    assert (first.kind, first.in_shape) == ("features", [8])  # the length comes first there: nothing may mix over it


class Bypassed(nn.Module):
    """Calls `used`, reads the weights of `read` without a call, throws away what `lost` gives, and cuts `cut` off."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.read, self.lost, self.cut = (nn.Linear(3, 3) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        self.lost(x)
        x = nn.functional.linear(self.used(x), self.read.weight)
        return x + self.cut(x).detach()


def test_a_module_whose_growth_would_change_nothing_is_no_site() -> None:
    slots = adapt(Bypassed(), example=torch.zeros(2, 3))

    assert [info.site for info in slots.sites] == ["used"]
    assert "not called" in slots.refused["read"]
    assert "no gradient" in slots.refused["lost"]
    assert "no gradient" in slots.refused["cut"]


def test_without_an_example_the_first_pass_shows_what_is_not_called() -> None:
    model = Bypassed()
    slots = adapt(model, [nn.Linear])
    early = slots["read#0"]
    early.germinate(nn.Linear(3, 3), blueprint="early")
    model(torch.zeros(2, 3))

    assert "not called" in slots.refused["read"]
    assert "not called" in str(early.tripped)
    early.to("pruned")
    for stage in ("embargoed", "resetting", "dormant"):
        early.to(stage)
    with pytest.raises(SiteError, match="not called"):
        early.germinate(nn.Linear(3, 3), blueprint="late")


def test_the_parts_of_torchs_attention_are_refused() -> None:
    slots = adapt(host("encoder"), nn.Linear, example=batch("encoder"))

    assert all("never calls them" in slots.refused[f"inner.layers.{i}.self_attn.out_proj"] for i in (0, 1))
    with pytest.raises(SiteError, match="never calls them"):
        adapt(host("encoder"), "inner.layers.0.self_attn.out_proj")


def test_a_module_that_gives_no_tensor_is_refused() -> None:
    with pytest.raises(SiteError, match=r"gives a tuple.*choose a module in it"):
        adapt(host("encoder"), "inner.layers.0.self_attn", example=batch("encoder"))


class Walker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return sum((child(x) for child in self.children()), start=x)


def test_a_module_that_walks_over_its_children_is_refused_and_its_parts_are_not() -> None:
    with pytest.raises(SiteError, match="walks over its children"):
        adapt(Walker(), ".")
    assert [info.site for info in adapt(Walker(), example=torch.zeros(2, 3)).sites] == ["a", "b"]


def test_a_forward_that_was_exchanged_on_the_object_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].forward = lambda x: x  # type: ignore[method-assign]

    assert "exchanged on the object" in adapt(model).refused["0"]


def test_a_host_with_an_attribute_of_the_name_of_ours_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    model[0].grown = 3  # type: ignore[assignment]

    with pytest.raises(SiteError, match="rename it"):
        adapt(model)


def test_models_that_cannot_grow_are_refused_in_one_line() -> None:
    plain = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(SiteError, match="before it is wrapped") as error:
        adapt(nn.DataParallel(plain))
    assert "\n" not in str(error.value)
    with (
        pytest.warns(DeprecationWarning, match="torch.jit.script"),
        pytest.raises(SiteError, match="before it is scripted"),
    ):
        adapt(torch.jit.script(nn.Linear(3, 3)))
    with pytest.raises(SiteError, match="before it is quantized"):
        adapt(nn.Sequential(nn.Linear(3, 3), torch.ao.nn.quantized.DeQuantize()))
    with pytest.raises(SiteError, match="holds no Conv2d"):
        adapt(plain, nn.Conv2d)
    with pytest.raises(SiteError, match=r"near to it: encoder\.0"):
        adapt(nn.ModuleDict({"encoder": plain}), "encoder.00")
    with pytest.raises(SiteError, match="has no Linear"):
        adapt(nn.Sequential(nn.ReLU()))
    with pytest.raises(SiteError, match="no weights yet"):
        adapt(nn.Sequential(nn.LazyLinear(3)), nn.LazyLinear)


def test_a_model_that_has_grown_is_not_adapted_again() -> None:
    model = host("mlp")
    grow(adapt(model, example=batch("mlp")), "0")

    with pytest.raises(SiteError, match="grown already"):
        adapt(model)


def test_an_example_that_does_not_fit_is_an_error_and_leaves_no_hook() -> None:
    model = host("mlp")

    with pytest.raises(SiteError, match="does not run on the example"):
        adapt(model, example=torch.zeros(2, 99))
    assert not any(module._forward_hooks for module in model.modules())


def test_an_example_disturbs_neither_generators_nor_batchnorm_nor_flags_nor_gradients() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.host = host("cnn")
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.host(x + torch.randn(1) * 0.1)

    model = Noisy().train()
    model.host.get_submodule("blocks.0").eval()
    flags = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    state = torch.random.get_rng_state()
    adapt(model, example=batch("cnn"))

    assert torch.equal(torch.random.get_rng_state(), state)
    assert [module.training for module in model.modules()] == flags
    assert all(same_bits(value, before[key]) for key, value in model.state_dict().items() if value.is_floating_point())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_example_may_be_several_inputs_or_named_ones() -> None:
    padding = torch.zeros(4, 5, dtype=torch.bool)
    a = adapt(host("encoder"), example=(batch("encoder"), padding)).sites
    b = adapt(host("encoder"), example={"x": batch("encoder"), "padding": padding}).sites

    assert a == b != ()


@pytest.mark.parametrize(
    ("seed", "reason"),
    [
        (nn.Linear(6, 4), "gives"),
        (nn.Linear(5, 3), "does not run"),
        (nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3)), "inplace=False"),
        (nn.LSTM(6, 3), "tuple"),
    ],
    ids=["shape", "input", "inplace", "tuple"],
)
def test_a_seed_that_does_not_fit_is_refused_and_nothing_changes(seed: nn.Module, reason: str) -> None:
    slots = adapt(host("mlp"), example=batch("mlp"))

    with pytest.raises(SlotError, match=reason):
        slots["0#0"].germinate(seed, blueprint="wrong")
    assert slots["0#0"].stage == "dormant" and type(slots.root[0]) is nn.Linear  # type: ignore[index]


def test_a_seed_with_infinite_weights_is_refused() -> None:
    slots = adapt(host("mlp"), example=batch("mlp"))
    seed = nn.Linear(6, 3)
    with torch.no_grad():
        seed.weight[0, 0] = float("inf")

    with pytest.raises(SlotError, match="not finite"):
        slots["0#0"].germinate(seed, blueprint="wrong")


def test_a_part_of_the_model_is_no_seed() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    slots = adapt(model, example=torch.zeros(1, 3))

    with pytest.raises(SlotError, match="part of the model"):
        slots["0#0"].germinate(model[1], blueprint="wrong")


def test_a_seed_takes_the_dtype_and_mode_of_its_host() -> None:
    slots = adapt(host("mlp", torch.float64).eval(), example=batch("mlp", torch.float64))
    slots["0#0"].germinate(nn.Linear(6, 3), blueprint="linear", blend="gate")

    assert {parameter.dtype for parameter in slots["0#0"].params()} == {torch.float64}
    assert slots["0#0"].seed is not None and not slots["0#0"].seed.training


def test_a_sequential_with_seeds_is_still_the_chain_that_it_was() -> None:
    x, model = batch("mlp"), host("mlp").eval()
    before = model(x)
    slots: Slots = adapt(model, ".", example=x)
    grow(slots, ".", alpha=0.0)

    assert isinstance(model, nn.Sequential) and len(model) == 6
    assert [type(link) for link in model][:2] == [nn.Linear, nn.ReLU]
    assert isinstance(model[-1], nn.Linear) and len(model[1:3]) == 2
    assert type(model[1:3]) is nn.Sequential
    with pytest.raises(IndexError):
        model[6]
    assert same_bits(model(x), before)


class Graph(nn.Module):
    """A network over a graph, whose adjacency is a sparse buffer."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        adjacency = torch.eye(4)
        self.register_buffer("adjacency", adjacency.to_sparse() if layout == "coo" else adjacency.to_sparse_csr())
        self.inner, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.adjacency @ self.inner(x)))


@pytest.mark.parametrize("layout", ["coo", "csr"])
@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_model_with_a_sparse_buffer_grows_as_any_other(layout: str) -> None:
    model, x = Graph(layout), torch.randn(4, 3)
    before = model(x).detach()
    slots = adapt(model, example=x)
    assert same_bits(model(x), before)
    slot = grow(slots, "inner", "blending", alpha=1.0)
    assert not torch.equal(model(x), before) and slot.tripped is None


class Frozen(nn.Module):
    """A backbone that is run without gradients, in train mode too or in eval mode alone, and a head."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.always = always
        self.back, self.head = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.training and not self.always):
            x = self.back(x)
        return self.head(x)


@pytest.mark.parametrize("told", ["an example", "the first pass"])
def test_what_runs_without_gradients_is_refused_for_a_seed_there_would_never_learn(told: str) -> None:
    model, x = Frozen(always=True), torch.randn(4, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    slots = adapt(model, example=x if told == "an example" else None)
    if told == "the first pass":
        model(x)
    else:
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [info.site for info in slots.sites] == ["head"]
    assert "called without gradients" in slots.refused["back.0"]
    with pytest.raises(SiteError, match="called without gradients"):
        slots["back.0#0"].germinate(nn.Linear(3, 3), blueprint="test") if told == "the first pass" else adapt(
            model, "back.0", example=x
        )


def test_what_runs_without_gradients_in_eval_mode_alone_is_a_site() -> None:
    model, x = Frozen(always=False), torch.randn(4, 3)
    slots = adapt(model, example=x)
    assert [info.site for info in slots.sites] == ["back.0", "head"] and not slots.refused
    assert adapt(model, "back.0", example=x[:1])["back.0#0"].stage == "dormant", (
        "a batch of one says nothing in train mode"
    )


def test_a_slot_in_which_other_slots_of_the_model_have_grown_is_refused_and_nothing_changes() -> None:
    model, x = host("mlp"), batch("mlp")
    one, other = adapt(model, example=x), adapt(model, example=x)
    slot = grow(one, "0", "blending", alpha=1.0)
    seed, before = slot.seed, model.eval()(x).detach()
    with pytest.raises(SlotError, match="other Slots of this model"):
        grow(other, "0")
    assert slot.seed is seed and same_bits(model(x), before) and other["0#0"].stage == "dormant"


@pytest.mark.parametrize("slots", [1.5, "2", None])
def test_a_number_of_slots_that_is_none_is_refused_in_one_line(slots: Any) -> None:
    with pytest.raises(SlotError, match="1 slot or more"):
        adapt(host("mlp"), slots=slots)
    with pytest.raises(SiteError, match="classes, names, patterns"):
        adapt(host("mlp"), 3)  # type: ignore[arg-type]
