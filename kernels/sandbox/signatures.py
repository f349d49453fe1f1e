"""What arguments a declared function takes, looked up once: `inspect.signature` costs as much as many a capability."""

import inspect
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

_ANY = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
_known: dict[bool, WeakKeyDictionary[Callable[..., Any], inspect.Signature]] = {
    True: WeakKeyDictionary(), False: WeakKeyDictionary(),
}  # fmt: skip  # of methods bound to something, and of all else


def signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return a function's signature; None where it does not tell, as some functions in C do not."""
    plain = getattr(function, "__func__", function)
    known = _known[plain is not function]
    try:
        found = known.get(plain)
    except TypeError:  # it cannot be referred to weakly, or has no hash
        return _looked_up(function)
    if found is None:
        found = _looked_up(function)
        if found is not None:
            known[plain] = found
    return found


def takes_anything(function: Callable[..., Any]) -> bool:
    """Whether it is written as `def function(*args, **kwargs)`, so that any arguments fit."""
    code = getattr(function, "__code__", None)
    if code is None or hasattr(function, "__wrapped__") or hasattr(function, "__signature__"):
        return False
    return bool(code.co_flags & _ANY == _ANY and not code.co_argcount and not code.co_kwonlyargcount)


def _looked_up(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except ValueError:
        return None
