"""Seeds join an optimizer in the middle of a run, and leave it; whatever else it holds stays as it is.

A seed's parameters go into the param group of its host, so the groups stay as many as they were, with the rates that a
scheduler gives them. Inside the group they stand where they stand in `model.parameters()`: an optimizer made anew for the
grown model has the same order, and its state_dict fits.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .errors import JoinError
from .slot import Slot


def join(optimizer: Optimizer, slot: Slot) -> None:
    """Let `optimizer` train the seed of `slot` from its next step on. What it trains already is left out.

    Raises JoinError for an optimizer that keeps one state for all parameters (LBFGS), for one that takes matrices only
    (Muon) where the seed has others, and for one that trains nothing of this model.
    """
    kind = type(optimizer).__name__
    if slot.graft is None:
        raise JoinError(f"{slot.id}: no seed stands here that could join {kind}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise JoinError(f"{slot.id}: {kind} keeps one state for all parameters together; a seed cannot join it")
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    new = [parameter for parameter in slot.params() if parameter.requires_grad and id(parameter) not in held]
    if _matrices_only(optimizer) and any(parameter.ndim != 2 for parameter in new):
        raise JoinError(f"{slot.id}: {kind} trains matrices only, and the seed has other parameters")
    if not new:
        return
    group = _group(optimizer, slot)
    names = {id(parameter): name for name, parameter in slot.slots.model.named_parameters()}
    places = {identity: place for place, identity in enumerate(names)}
    params: list[nn.Parameter] = group["params"]
    known = [places.get(id(parameter), -1) for parameter in params]
    in_order = known == sorted(known) and -1 not in known
    for parameter in new:
        index = sum(places[id(other)] < places[id(parameter)] for other in params) if in_order else len(params)
        params.insert(index, parameter)
        if "param_names" in group:
            group["param_names"].insert(index, names[id(parameter)])


def leave(optimizer: Optimizer, seed: Slot | Iterable[nn.Parameter]) -> None:
    """Take a seed's parameters and their state out of `optimizer`: a slot before it is pruned, or parameters kept from it."""
    params = seed.params() if isinstance(seed, Slot) else list(seed)
    gone = {id(parameter) for parameter in params}
    for group in optimizer.param_groups:
        kept = [index for index, parameter in enumerate(group["params"]) if id(parameter) not in gone]
        if len(kept) == len(group["params"]):
            continue
        if "param_names" in group:
            group["param_names"][:] = [group["param_names"][index] for index in kept]
        group["params"][:] = [group["params"][index] for index in kept]
    for parameter in params:
        optimizer.state.pop(parameter, None)


def _group(optimizer: Optimizer, slot: Slot) -> dict[str, Any]:
    """Give the group of the host's own weights, else of the nearest module around it that has any."""
    own = {id(parameter) for parameter in slot.params()}
    around = sorted(
        (module for module in slot.slots.model.modules() if any(part is slot.host for part in module.modules())),
        key=lambda module: sum(1 for _ in module.modules()),
    )
    for module in around:
        for parameter in module.parameters():
            if id(parameter) in own:
                continue
            for group in optimizer.param_groups:
                if any(other is parameter for other in group["params"]):
                    return group
    raise JoinError(
        f"{slot.id}: this {type(optimizer).__name__} trains nothing of the model; give the one that trains it"
    )


def _matrices_only(optimizer: Optimizer) -> bool:
    muon = getattr(torch.optim, "Muon", None)
    return muon is not None and isinstance(optimizer, muon)
