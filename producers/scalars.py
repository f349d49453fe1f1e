"""What people pass to `log()`, as named plain numbers. Pure."""

import sys
from collections.abc import Mapping
from typing import Any

from morphogen.schemas.values import INT_MAX, INT_MIN, line_of, sound

MEETS = "another value of the same call has that name, and is kept"
_COMPLEX = "a complex is no number; log its parts"
_DEPTH = 8


def on_device(value: Any) -> bool:
    """Tell whether a value lies on a CUDA device, where reading it would stall the training stream."""
    try:
        return getattr(getattr(value, "device", None), "type", "cpu") == "cuda" and hasattr(value, "detach")
    except Exception:  # noqa: BLE001  anybody's object
        return False


def scalars(values: Mapping[Any, Any]) -> tuple[dict[str, int | float], dict[str, str], dict[str, Any]]:
    """Return (numbers by name, reason by name of what is refused, tensors of one element by name that lie on a device).

    Nested mappings become `outer/inner`. numpy and torch scalars, 0-d and one-element arrays, booleans and anything
    with `__float__` are numbers; None and what numpy masks are left out silently (not measured). An integer beyond 64
    bits becomes a float. Of several values with one name the first is kept. Never raises for what a value does.
    """
    found = _Found()
    found.collect(values, "", _DEPTH)
    return found.numbers, found.refused, found.far


class _Found:
    def __init__(self) -> None:
        self.numbers: dict[str, int | float] = {}
        self.refused: dict[str, str] = {}
        self.far: dict[str, Any] = {}

    def collect(self, values: Mapping[Any, Any], prefix: str, depth: int) -> None:
        for key, value in values.items():
            name = f"{prefix}{sound(key)}"
            try:
                if isinstance(value, Mapping):
                    if not depth:
                        raise ValueError("nested too deeply")
                    self.collect(value, f"{name}/", depth - 1)
                else:
                    self._take(f"{prefix}{key}", value)
            except Exception as error:  # noqa: BLE001  anybody's number
                self.refused[name] = line_of(error, 200)

    def _take(self, name: str, value: Any) -> None:
        if value is None:
            return
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError("its name holds half a character") from None
        if _is_masked(value):
            return
        if name in self.numbers or name in self.far:
            raise ValueError(MEETS)
        if on_device(value):
            self.far[name] = _one(value)
        else:
            self.numbers[name] = _number(value)


def _is_masked(value: Any) -> bool:
    """Tell whether a value is one that numpy masks; what lies under the mask was never measured."""
    masked = sys.modules.get("numpy.ma")
    return masked is not None and isinstance(value, masked.MaskedArray) and value.size == 1 and bool(value.mask.all())


def _one(value: Any) -> Any:
    """Return a tensor or array of one real element. Raises TypeError."""
    size = value.numel() if hasattr(value, "numel") else getattr(value, "size", 1)
    if size != 1:
        raise TypeError(f"{size} elements are no scalar; log one number, or an event with a vector")
    if hasattr(value, "is_complex") and value.is_complex():
        raise TypeError(_COMPLEX)
    return value


def _number(value: Any) -> int | float:
    if type(value) is float:
        return value
    if isinstance(value, str | bytes | complex):
        raise TypeError(f"a {type(value).__name__} is no number; use run.line() for text")
    if getattr(value, "item", None) is not None:
        value = _one(value).item()
        if isinstance(value, complex):
            raise TypeError(_COMPLEX)
    if isinstance(value, int):
        number = int(value)
        return number if INT_MIN <= number <= INT_MAX else float(number)
    if isinstance(value, float) or hasattr(value, "__float__"):
        return float(value)
    raise TypeError(f"a {type(value).__name__} is no number")
