"""The fast paths of torch's transformer layers, which in eval mode read the weights of their parts and call none of them.

While nothing grown is blended in, they are left as they are, so that the host is bit-identical. While something is, the
layers around it are made to call their parts: a forward hook on any part switches a layer's own path off, by torch's own
rule, and an encoder is kept from turning padded batches into nested tensors, which seeds could not read.
"""

from typing import Any

from torch import nn

from .graft import Graft
from .host import grafts

_MARK = "_nested_before_growth"


def settle(model: nn.Module) -> None:
    """Open or close the fast paths of `model` by what is blended in now."""
    live: set[int] = set()
    for host in model.modules():
        for graft in (grafts(host) or {}).values():
            assert isinstance(graft, Graft)
            _show(graft, graft.live)
            if graft.live:
                live.add(id(host))
    for encoder in model.modules():
        if isinstance(encoder, nn.TransformerEncoder):
            _nest(encoder, blocked=any(id(part) in live for part in encoder.modules()))


def reopen(model: nn.Module) -> None:
    """Give every encoder its own choice back, for a model that nothing of ours is in any more."""
    for encoder in model.modules():
        if isinstance(encoder, nn.TransformerEncoder):
            _nest(encoder, blocked=False)


def _show(graft: Graft, live: bool) -> None:
    if live and not graft._forward_hooks:
        graft.register_forward_hook(_nothing)
    elif not live:
        graft._forward_hooks.clear()


def _nest(encoder: nn.TransformerEncoder, *, blocked: bool) -> None:
    kept = vars(encoder)
    if blocked and _MARK not in kept:
        kept[_MARK] = encoder.use_nested_tensor
        encoder.use_nested_tensor = False
    elif not blocked and _MARK in kept:
        encoder.use_nested_tensor = kept.pop(_MARK)


def _nothing(module: nn.Module, args: Any, output: Any) -> None:
    """Do nothing: that it is there is what counts."""
