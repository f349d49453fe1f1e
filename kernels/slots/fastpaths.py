"""The fast paths of torch's transformer layers, which in eval mode read the weights of their parts and call none of them.

While nothing grown is blended in, they are left as they are, so that the host is bit-identical. While something is, the
layers around it are made to call their parts: a forward hook on any part switches a layer's own path off, by torch's own
rule, and an encoder is kept from turning padded batches into nested tensors, which seeds could not read. An encoder in
which something has grown looks again whenever a state_dict was loaded, which may move an alpha.
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
            graft.show()
            if graft.live:
                live.add(id(host))
    for encoder in model.modules():
        if isinstance(encoder, nn.TransformerEncoder):
            _look_again(encoder, any(grafts(part) is not None for part in encoder.modules()))
            _nest(encoder, blocked=any(id(part) in live for part in encoder.modules()))


def reopen(model: nn.Module) -> None:
    """Give every encoder its own choice back, for a model that nothing of ours is in any more."""
    for encoder in model.modules():
        if isinstance(encoder, nn.TransformerEncoder):
            _look_again(encoder, False)
            _nest(encoder, blocked=False)


def _look_again(encoder: nn.TransformerEncoder, wanted: bool) -> None:
    hooks = encoder._load_state_dict_post_hooks
    ours = [key for key, hook in hooks.items() if hook is _loaded]
    if wanted and not ours:
        encoder.register_load_state_dict_post_hook(_loaded)  # type: ignore[no-untyped-call]
    elif not wanted:
        for key in ours:
            del hooks[key]


def _loaded(encoder: nn.Module, keys: Any) -> None:
    settle(encoder)


def _nest(encoder: nn.TransformerEncoder, *, blocked: bool) -> None:
    kept = vars(encoder)
    if blocked and _MARK not in kept:
        kept[_MARK] = encoder.use_nested_tensor
        encoder.use_nested_tensor = False
    elif not blocked and _MARK in kept:
        encoder.use_nested_tensor = kept.pop(_MARK)
