"""Where a model can be grown: which modules are asked for, which of them can carry a seed, and why not."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from types import CodeType, FunctionType

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from morphogen.schemas import line_of

from .errors import SiteError
from .host import NAME, grafts

Selector = type[nn.Module] | str | Callable[[str, nn.Module], bool]
"""A class of modules, a name or a pattern of names (`encoder.*`, by fnmatch), or a predicate of name and module."""

ROOT = "."
"""The name of the model itself, as a site."""

_WALKS = {"children", "named_children", "_modules"}


def unwrapped(model: nn.Module) -> nn.Module:
    """Give the module that `torch.compile` has wrapped, or `model` itself; refuse what cannot grow at all."""
    inner = getattr(model, "_orig_mod", None) if type(model).__name__ == "OptimizedModule" else None
    model = inner if isinstance(inner, nn.Module) else model
    for name, module in model.named_modules():
        place = f"{name or 'the model'} is a {type(module).__name__}"
        if isinstance(module, DistributedDataParallel | DataParallel) or _sharded(module):
            raise SiteError(f"{place}: its copies would not see what grows; adapt the model before it is wrapped")
        if isinstance(module, torch.jit.ScriptModule):
            raise SiteError(f"{place}: a compiled script cannot grow; adapt the model before it is scripted")
        if ".quantized" in type(module).__module__ and type(module).__module__.startswith("torch."):
            raise SiteError(f"{place}: quantized weights cannot be trained; adapt the model before it is quantized")
        if grafts(module) is not None:
            raise SiteError(f"{place} that has grown already: use the Slots that grew it, or fuse() the model first")
    return model


def _sharded(module: nn.Module) -> bool:
    if any(cls.__name__ in {"FullyShardedDataParallel", "FSDPModule"} for cls in type(module).__mro__):
        return True
    return any(type(parameter.data).__name__ == "DTensor" for parameter in module.parameters(recurse=False))


def select(
    model: nn.Module, wanted: Selector | Sequence[Selector] | None
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Give the modules asked for that can carry a seed, by name in the order of the model, and why the others cannot.

    None asks for the automatic choice: see `automatic`. A module under several names goes by its first one.
    """
    parents = {id(child): parent for parent in model.modules() for child in parent.children()}
    names = {id(module): name or ROOT for name, module in model.named_modules()}
    if wanted is None:
        chosen = dict(automatic(model))
    else:
        selectors = [wanted] if isinstance(wanted, str | type) or callable(wanted) else list(wanted)
        chosen = {}
        for selector in selectors:
            chosen.update(_matching(model, selector))
    found: dict[str, nn.Module] = {}
    refused: dict[str, str] = {}
    order = {identity: place for place, identity in enumerate(names)}
    for module in sorted(chosen.values(), key=lambda module: order[id(module)]):
        name = names[id(module)]
        why = unsuitable(module, parents.get(id(module)))
        if why is None:
            found[name] = module
        else:
            refused[name] = why
    return found, refused


def automatic(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Give every Linear and Conv2d, the output layer too, and every block: one of several of its class in a row.

    The output layer is a place as good as any: a seed beside it sees what the layer sees, and adds to its logits.
    """
    blocks: set[int] = set()
    for module in model.modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            for child in module.children():
                if sum(type(other) is type(child) for other in module.children()) > 1 and list(child.children()):
                    blocks.add(id(child))
    for name, module in model.named_modules():
        if (isinstance(module, nn.Linear | nn.Conv2d) and not isinstance(module, nn.LazyLinear)) or id(
            module
        ) in blocks:
            yield name or ROOT, module


def unsuitable(module: nn.Module, parent: nn.Module | None) -> str | None:
    """Say why no seed can stand at a module, from what it is; None where nothing speaks against it."""
    kind = type(module).__name__
    if isinstance(module, nn.ModuleList | nn.ModuleDict | nn.ParameterList | nn.ParameterDict):
        return f"a {kind} is no step of the forward pass: name the modules in it"
    if isinstance(parent, nn.MultiheadAttention):
        return "nn.MultiheadAttention reads the weights of its parts and never calls them: choose the block around it"
    if "forward" in vars(module):
        return f"the forward of this {kind} was exchanged on the object, and would not see what grows"
    if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
        return f"this {kind} has no weights yet: run the model once, then adapt it"
    if hasattr(module, NAME):
        return f"this {kind} has an attribute `{NAME}` of its own, where seeds would stand: rename it"
    if not isinstance(module, nn.Sequential) and list(module.children()):
        method = _walker(type(module))
        if method is not None:
            return f"{method} of this {kind} walks over its children, and would meet what grows: choose a module in it"
    return None


def _walker(cls: type) -> str | None:
    """Give the method of a user's class that walks over `children()`, as far as its code says so."""
    for base in cls.__mro__:
        if base in (nn.Module, nn.Sequential):
            break
        if base.__module__.startswith("torch."):
            continue
        for name, value in vars(base).items():
            if isinstance(value, FunctionType) and not name.startswith("__") and _WALKS & _names(value.__code__):
                return name
    return None


def _names(code: CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def _matching(model: nn.Module, selector: Selector) -> dict[str, nn.Module]:
    modules = {name or ROOT: module for name, module in model.named_modules(remove_duplicate=False)}
    if isinstance(selector, str):
        if selector in modules:
            return {selector: modules[selector]}
        found = {name: module for name, module in modules.items() if fnmatchcase(name, selector)}
        if not found:
            near = difflib.get_close_matches(selector, modules, n=3)
            hint = f"; near to it: {', '.join(near)}" if near else ""
            raise SiteError(f"no module of the model is called, or matches, {selector!r}{hint}")
        return found
    if isinstance(selector, type):
        found = {name: module for name, module in modules.items() if isinstance(module, selector)}
        if not found:
            raise SiteError(f"the model holds no {selector.__name__}")
        return found
    if not callable(selector):
        raise SiteError(f"a site is chosen by class, name, pattern or predicate, not by {type(selector).__name__}")
    return {name: module for name, module in modules.items() if _wanted(selector, name, module)}


def _wanted(predicate: Callable[[str, nn.Module], bool], name: str, module: nn.Module) -> bool:
    try:
        return bool(predicate(name, module))
    except Exception as error:
        raise SiteError(
            f"a predicate of sites is called with a name and a module; at {name!r} it failed: {type(error).__name__}: "
            f"{line_of(error)}"
        ) from error


def kind_of(
    module: nn.Module, given: Sequence[int], gave: Sequence[int], *, batch_first: bool
) -> tuple[str, list[int], list[int]]:
    """Give the kind of a site and its shapes without the batch, from the whole shapes of one call.

    features: the last dimension counts, and there may be any number before it; sequence: (length, features); image:
    (channels, height, width); other: everything else, for seeds of the user's own making.
    """
    flat = isinstance(module, nn.Linear) or (len(given) == len(gave) and list(given[:-1]) == list(gave[:-1]))
    if isinstance(module, nn.Conv2d) and len(given) == 3:
        return "image", list(given), list(gave)
    if len(given) == len(gave) == 4 and not isinstance(module, nn.Linear):
        return "image", list(given[1:]), list(gave[1:])
    if flat and given and not isinstance(module, nn.Conv1d):
        if len(given) == 3 and batch_first:
            return "sequence", list(given[1:]), list(gave[1:])
        return "features", list(given[-1:]), list(gave[-1:])
    return "other", list(given[1:]), list(gave[1:])


def counts_batch_first(model: nn.Module) -> bool:
    """Whether the first dimension of a sequence is the batch, as far as the model's attention and recurrent layers say."""
    return all(getattr(module, "batch_first", True) is not False for module in model.modules())
