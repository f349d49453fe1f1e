"""Any value as one that an event can hold and a sandboxed tool could be given: what is recorded is what can be replayed."""

from typing import Any

from .values import INT_MAX, INT_MIN, plain

DEEPEST = 32  # lists and mappings in each other: what may cross into the sandbox


def settled(value: Any) -> Any:
    """Return None, bool, int of 64 bits, float, text, bytes, list and dict (keys text or integers) as they are.

    Tuples become lists, lone surrogates `?`, larger integers text; all else becomes what `plain` makes of it (arrays as
    lists, structs as dicts, the rest its repr), as does what is nested deeper than 32 and what holds itself. Never raises.
    """
    return _settled(value, DEEPEST, ())


def _settled(value: Any, depth: int, above: tuple[int, ...]) -> Any:
    try:
        return _form(value, depth, above)
    except Exception:  # noqa: BLE001  an object of the user's, whose every method may fail
        return plain(value, 0)


def _form(value: Any, depth: int, above: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return plain(value)
    if isinstance(value, str):
        return str.encode(value, "utf-8", "replace").decode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if depth <= 0 or id(value) in above:
        return plain(value, 0)
    above = (*above, id(value))
    if isinstance(value, list | tuple):
        return [_settled(item, depth - 1, above) for item in value]
    if isinstance(value, dict):
        return {_key(key): _settled(item, depth - 1, above) for key, item in value.items()}
    return _settled(plain(value), depth - 1, above)


def _key(key: Any) -> str | int:
    if isinstance(key, int) and not isinstance(key, bool) and INT_MIN <= key <= INT_MAX:
        return int(key)
    return str(_settled(key if isinstance(key, str) else str(key), 0, ()))
