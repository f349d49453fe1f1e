"""A host with seeds: its class is exchanged for a subclass, as `torch.nn.utils.parametrize` does, and back.

So the module stays the object that it was: its names in the state_dict, its hooks, ties and references hold, and
`isinstance` says what it said. A host without seeds has its own class and nothing of ours.
"""

import types
import weakref
from collections.abc import Iterator
from typing import Any

from torch import nn

from .errors import SiteError
from .graft import Graft, Grafts

NAME = "grown"
"""The child of a host that holds its seeds."""

_grown: "weakref.WeakValueDictionary[type[nn.Module], type[nn.Module]]" = weakref.WeakValueDictionary()


def grafts(host: nn.Module) -> Grafts | None:
    """Give the seeds at a host, or None."""
    found = host._modules.get(NAME)
    return found if isinstance(found, Grafts) else None


def attach(host: nn.Module, number: int, graft: Graft) -> None:
    """Put a graft at a host."""
    bank = grafts(host)
    if bank is None:
        if hasattr(host, NAME):
            raise SiteError(
                f"{type(host).__name__} has an attribute `{NAME}` of its own, where seeds would stand: rename it"
            )
        _exchange(host, grown_class(type(host)))
        bank = Grafts()
        bank.train(host.training)
        host._modules[NAME] = bank
    bank[str(number)] = graft
    for key in sorted(bank, key=int):  # the order of the slots, whatever the order in which they germinated
        bank[key] = bank.pop(key)


def detach(host: nn.Module, number: int) -> None:
    """Take a graft away; without any, the host is what it was."""
    bank = grafts(host)
    assert bank is not None
    del bank[str(number)]
    if not len(bank):
        del host._modules[NAME]
        base = base_of(type(host))
        if base is not None:  # else another subclass was put on top: with no seeds, it and ours are the host
            _exchange(host, base)


def base_of(cls: type) -> type[nn.Module] | None:
    """Give the class that a class of grown hosts was made from; None for any other class."""
    base: type[nn.Module] | None = vars(cls).get("_grown_from")
    return base


def grown_class(base: type[nn.Module]) -> type[nn.Module]:
    """Give the subclass of `base` whose forward blends seeds in: always the same one, while anyone holds it."""
    if base_of(base) is not None:
        return base
    found = _grown.get(base)
    if found is None:
        found = _grown[base] = _make(base)
    return found


def _make(base: type[nn.Module]) -> type[nn.Module]:
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        output = base.forward(self, *args, **kwargs)
        bank = self._modules.get(NAME)
        return output if bank is None else bank.together(output, args, kwargs)  # type: ignore[operator]

    def reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
        reduced: tuple[Any, ...] = object.__reduce_ex__(self, max(2, int(protocol)))  # type: ignore[assignment]
        return (_blank, (base,), *reduced[2:])

    space: dict[str, Any] = {
        "__doc__": f"{base.__name__}, and what has grown beside it.",
        "__module__": base.__module__,
        "__reduce_ex__": reduce,
        "_grown_from": base,
        "forward": forward,
    }
    if issubclass(base, nn.Sequential):
        space |= {"__iter__": _links, "__len__": _count, "__getitem__": _link(base)}
    try:
        return types.new_class(f"Grown{base.__name__}", (base,), exec_body=lambda body: body.update(space))
    except TypeError as error:
        raise SiteError(f"{base.__name__} cannot be subclassed, which growing needs: {error}") from error


def _blank(base: type[nn.Module]) -> nn.Module:
    """Make an empty grown host, for copy and pickle to fill."""
    cls = grown_class(base)
    return cls.__new__(cls)


def _exchange(host: nn.Module, cls: type[nn.Module]) -> None:
    try:
        object.__setattr__(host, "__class__", cls)
    except TypeError as error:
        raise SiteError(
            f"the class of {type(host).__name__} cannot be exchanged, which growing needs: {error}"
        ) from error


# A Sequential runs whatever stands in it: the seeds are no link of its chain.


def _links(self: nn.Sequential) -> Iterator[nn.Module]:
    return iter([module for name, module in self._modules.items() if name != NAME and module is not None])


def _count(self: nn.Sequential) -> int:
    return len(self._modules) - (NAME in self._modules)


def _link(base: type[nn.Sequential]) -> Any:
    def item(self: nn.Sequential, index: slice | int) -> Any:
        chain = [(name, module) for name, module in self._modules.items() if name != NAME]
        if isinstance(index, slice):
            part = base.__new__(base)
            nn.Module.__init__(part)
            part._modules.update(chain[index])
            return part
        if not -len(chain) <= index < len(chain):
            raise IndexError(f"index {index} is out of range")
        return chain[index][1]

    return item
