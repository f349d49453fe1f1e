"""Copies of models that leave behind the hooks by which a log watches them: those hold threads and queues."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from morphogen.schemas import line_of

from .errors import SlotError

T = TypeVar("T")

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OURS = "morphogen."
_HERE = __package__ or ""


def copied(value: T) -> T:
    """Copy a model, or what holds one, with the hooks of slots and of the user, and with no other hook of Morphogen's."""
    model = value if isinstance(value, nn.Module) else getattr(value, "root", None)
    assert isinstance(model, nn.Module)
    return _copied(value, model, lambda name: name.startswith(_OURS) and not name.startswith(_HERE))


def bare(model: nn.Module) -> nn.Module:
    """Copy a model with the hooks of the user alone."""
    return _copied(model, model, lambda name: name.startswith(_OURS))


def _copied(value: T, model: nn.Module, left: Callable[[str], bool]) -> T:
    gone = _Gone()
    memo: dict[int, Any] = {}
    for module in model.modules():
        for kind in _HOOKS:
            for hook in getattr(module, kind, {}).values():
                if left(_origin(hook)):
                    memo[id(hook)] = gone
    try:
        result = copy.deepcopy(value, memo)
    except Exception as error:
        text = f"{type(error).__name__}: {line_of(error, 300)}"
        raise SlotError(f"this {type(model).__name__} cannot be copied: {text}") from error
    root = result if isinstance(result, nn.Module) else getattr(result, "root", None)
    assert isinstance(root, nn.Module)
    for module in root.modules():
        for kind in _HOOKS:
            hooks = getattr(module, kind, {})
            for key in [key for key, hook in hooks.items() if hook is gone]:
                del hooks[key]
                for extra in (f"{kind}_with_kwargs", f"{kind}_always_called"):
                    getattr(module, extra, {}).pop(key, None)
    return result


class _Gone:
    """Stands where a hook was, until it is taken out."""


def _origin(hook: Any) -> str:
    hook = getattr(hook, "func", hook)  # functools.partial
    return str(getattr(hook, "__module__", None) or type(hook).__module__)
