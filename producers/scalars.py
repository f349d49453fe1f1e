"""What people pass to `log()`, as named plain numbers. Pure."""

from collections.abc import Mapping
from typing import Any

from morphogen.schemas.values import INT_MAX, INT_MIN, line_of

_DEPTH = 8


def on_device(value: Any) -> bool:
    """Tell whether a value lies on a CUDA device, where reading it would stall the training stream."""
    return getattr(getattr(value, "device", None), "type", "cpu") == "cuda" and hasattr(value, "detach")


def scalars(values: Mapping[Any, Any]) -> tuple[dict[str, int | float], dict[str, str]]:
    """Return (numbers by name, reason by name of what is no number).

    Nested mappings become `outer/inner`. numpy and torch scalars, 0-d and one-element arrays, booleans and anything
    with `__float__` are numbers; None is left out silently (not measured). An integer beyond 64 bits becomes a float.
    """
    numbers: dict[str, int | float] = {}
    refused: dict[str, str] = {}
    _collect(values, "", numbers, refused, _DEPTH)
    return numbers, refused


def _collect(
    values: Mapping[Any, Any], prefix: str, numbers: dict[str, int | float], refused: dict[str, str], depth: int
) -> None:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if value is None:
            continue
        if isinstance(value, Mapping):
            if depth:
                _collect(value, f"{name}/", numbers, refused, depth - 1)
            else:
                refused[name] = "nested too deeply"
            continue
        try:
            name.encode()
        except UnicodeEncodeError:
            refused[ascii(name)] = "its name holds half a character"
            continue
        try:
            numbers[name] = _number(value)
        except Exception as error:  # noqa: BLE001  anybody's number
            refused[name] = line_of(error, 200)


def _number(value: Any) -> int | float:
    if type(value) is float:
        return value
    if isinstance(value, str | bytes | complex):
        raise TypeError(f"a {type(value).__name__} is no number; use run.line() for text")
    item = getattr(value, "item", None)
    if item is not None:
        size = value.numel() if hasattr(value, "numel") else getattr(value, "size", 1)
        if size != 1:
            raise TypeError(f"{size} elements are no scalar; log one number, or an event with a vector")
        value = item()
        if isinstance(value, complex):
            raise TypeError("a complex is no number; log its parts")
    if isinstance(value, int):
        number = int(value)
        return number if INT_MIN <= number <= INT_MAX else float(number)
    if isinstance(value, float) or hasattr(value, "__float__"):
        return float(value)
    raise TypeError(f"a {type(value).__name__} is no number")
