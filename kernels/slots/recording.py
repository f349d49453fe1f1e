"""What goes through a site: its shapes, and whether anything that it gives reaches the model's output."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from morphogen.schemas import line_of

from .errors import SiteError
from .sites import kind_of
from .undisturbed import undisturbed


class Site:
    """A module that may be grown at. `given` and `gave` are whole shapes, None until it was called."""

    def __init__(self, name: str, module: nn.Module, *, batch_first: bool) -> None:
        self.name = name
        self.module = module
        self.batch_first = batch_first
        self.kind = "other"
        self.in_shape: list[int] | None = None
        self.out_shape: list[int] | None = None
        self.given: list[int] | None = None
        self.gave: list[int] | None = None
        self.dtype: torch.dtype | None = None
        self.learns = False  # it was called where gradients are taken
        self.refusal: str | None = None

    @property
    def called(self) -> bool:
        """Whether the module was seen in a forward pass."""
        return self.given is not None

    def record(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: object) -> None:
        """Take in one call of the module."""
        self.refusal = None
        self.learns = self.learns or torch.is_grad_enabled()
        given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        kind = type(self.module).__name__
        if given is None:
            self.refusal = f"this {kind} was called without a tensor"
        elif not isinstance(output, Tensor):
            self.refusal = (
                f"this {kind} gives a {type(output).__name__}, where a tensor is needed: choose a module in it"
            )
        elif not output.is_floating_point():
            self.refusal = f"this {kind} gives {str(output.dtype).removeprefix('torch.')}, where floats are needed"
        else:
            self.given, self.gave, self.dtype = list(given.shape), list(output.shape), given.dtype
            self.kind, self.in_shape, self.out_shape = kind_of(
                self.module, self.given, self.gave, batch_first=self.batch_first
            )


class FirstCall:
    """A forward hook that records the first call of its module, and goes."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.handle = site.module.register_forward_hook(self, with_kwargs=True)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        """Record, unless a graph is being made: what runs only then would be no call."""
        if torch.compiler.is_compiling():
            return
        self.site.record(args, kwargs, output)
        self.handle.remove()


class FirstPass:
    """A forward hook of the whole model that refuses, after its first pass, every site that was not called in it, and goes."""

    def __init__(self, model: nn.Module, sites: list[Site]) -> None:
        self.sites = sites
        self.handle = model.register_forward_hook(self)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        """Refuse what was not called, or was called without gradients; a call in a later pass lifts the first of these."""
        if torch.compiler.is_compiling():
            return
        for site in self.sites:
            if not site.called and site.refusal is None:
                site.refusal = not_called(site)
        if module.training and torch.is_grad_enabled():
            refuse_without_gradients(self.sites)
        self.handle.remove()


def not_called(site: Site) -> str:
    """Say that a module has no part in the forward pass."""
    return f"this {type(site.module).__name__} is not called in the forward pass: what grows there would change nothing"


def refuse_without_gradients(sites: list[Site]) -> None:
    """Refuse the sites that were only ever called under `torch.no_grad()`, such as those of a frozen backbone."""
    for site in sites:
        if site.called and site.refusal is None and not site.learns:
            site.refusal = f"this {type(site.module).__name__} is called without gradients (torch.no_grad): a seed there would never learn"


def run_example(model: nn.Module, sites: list[Site], example: object) -> None:
    """Record every site in one pass in eval mode, and whether a gradient of the model's output comes back to it.

    Leaves no trace: no hook, no gradient, no changed buffer, and the random generators where they were.
    """
    outputs: dict[str, Tensor] = {}
    known = False  # all but what is run without gradients

    def hook(site: Site) -> Any:
        def seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> object:
            if known:
                site.learns = site.learns or torch.is_grad_enabled()
                return output
            site.record(args, kwargs, output)
            if not (isinstance(output, Tensor) and output.is_floating_point() and torch.is_grad_enabled()):
                return output
            if not output.requires_grad:  # a frozen part: a zero that asks for a gradient shows the way as well
                output = output + torch.zeros_like(output, requires_grad=True)
            outputs[site.name] = output
            return output

        return seen

    handles = [site.module.register_forward_hook(hook(site), with_kwargs=True) for site in sites]
    try:
        with undisturbed(model), torch.enable_grad(), _uncompiled():
            for module in model.modules():
                module.training = False
            args, kwargs = arguments(example)
            ends = [end for end in tensors(model(*args, **kwargs)) if end.requires_grad]
            if ends and outputs:
                _refuse_unreached(sites, outputs, ends)
            known = True
            if any(site.called and not site.learns for site in sites) and _trains(model, args, kwargs):
                refuse_without_gradients(sites)
    except SiteError:
        raise
    except Exception as error:
        raise SiteError(f"the model does not run on the example: {type(error).__name__}: {line_of(error)}") from error
    finally:
        for handle in handles:
            handle.remove()
    for site in sites:
        if not site.called and site.refusal is None:
            site.refusal = not_called(site)


def _uncompiled() -> AbstractContextManager[object]:
    """Run parts that are compiled without their graphs, in which no hook would see them; before torch 2.6, as they are."""
    stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if stance is None else stance("force_eager")


def _trains(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Run the model in train mode, for what it does with gradients there; tell whether it could be."""
    try:
        for module in model.modules():
            module.training = True
        model(*args, **kwargs)
    except Exception:  # noqa: BLE001  a batch of one, a label that is missing: then nothing is known
        return False
    return True


def _refuse_unreached(sites: list[Site], outputs: dict[str, Tensor], ends: list[Tensor]) -> None:
    try:
        found = torch.autograd.grad([end.sum() for end in ends], list(outputs.values()), allow_unused=True)
    except RuntimeError:  # a model that cannot be differentiated like this says nothing about its sites
        return
    unreached = {name for name, gradient in zip(outputs, found, strict=True) if gradient is None}
    for site in sites:
        if site.name in unreached:
            site.refusal = f"no gradient of the model's output reaches this {type(site.module).__name__}: a seed there would never learn"


def arguments(example: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give the arguments of a call of the model: an example is an input, a tuple of several or a mapping of named ones."""
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, tuple | list):
        return tuple(example), {}
    return (example,), {}


def tensors(value: object) -> Iterator[Tensor]:
    """Give every tensor in what a model gave."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors(part)
    elif hasattr(value, "__dataclass_fields__"):
        yield from tensors(list(vars(value).values()))
