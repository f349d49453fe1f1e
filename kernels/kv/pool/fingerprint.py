"""What must be equal for a torch model's KV state to mean the same: its weights, its shape, its positions."""

import hashlib
import importlib.metadata
import json
import weakref
from typing import Any

import torch

from morphogen.schemas.kv import Fingerprint, Scalar

from .torch_pool import PoolShape

STATE_VERSION = 1  # of the layout (L, 2, T, H, D)
_known: "weakref.WeakKeyDictionary[torch.nn.Module, tuple[tuple[int, ...], str]]" = weakref.WeakKeyDictionary()


def fingerprint_of_model(
    model: torch.nn.Module, shape: PoolShape, *, weights: str | None = None, vocab: str = ""
) -> Fingerprint:
    """Return the fingerprint of a Hugging Face model whose cache has `shape`.

    `weights`: a digest that the caller knows already, such as of its file; without one, the parameters are hashed, once
    for as long as none of them is written. `vocab`: a digest of its tokenizer's vocabulary.
    """
    config: Any = model.config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    window = getattr(config, "sliding_window", None)
    told: dict[str, Scalar] = {
        name: value
        if isinstance(value, str | int | float | bool) or value is None
        else json.dumps(value, sort_keys=True)
        for name, value in {"base": getattr(config, "rope_theta", None), **rope}.items()
    }
    return Fingerprint(
        engine="torch",
        build=f"transformers {importlib.metadata.version('transformers')}",
        state_version=STATE_VERSION,
        weights=weights or weights_digest(model),
        arch=str(config.model_type),
        vocab=vocab,
        type_k=shape.dtype,
        type_v=shape.dtype,
        layers=shape.layers,
        heads_kv=shape.heads,
        head_dim=shape.head_dim,
        rope=told,
        swa={} if window is None else {"window": window},
    )


def weights_digest(model: torch.nn.Module) -> str:
    """Return the sha256 of all parameters and buffers with their names; kept until one of them is written."""
    state = sorted(model.state_dict(keep_vars=True).items())
    try:
        mark = tuple(number for _, tensor in state for number in (id(tensor), tensor._version))
    except RuntimeError:  # tensors made in inference mode do not say when they are written
        mark = ()
    known = _known.get(model)
    if mark and known is not None and known[0] == mark:
        return known[1]
    digest = hashlib.sha256()
    for name, tensor in state:
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    _known[model] = mark, digest.hexdigest()
    return digest.hexdigest()
