"""Any value as one that an event can hold and a sandboxed tool could be given: what is recorded is what can be replayed."""

from typing import Any

from morphogen.schemas.values import INT_MAX, INT_MIN, plain

_DEPTH = 32  # what may cross into the sandbox


def settled(value: Any, depth: int = _DEPTH) -> Any:
    """Return None, bool, int of 64 bits, float, text, bytes, list and dict (keys text or integers) as they are.

    Tuples become lists, lone surrogates `?`, larger integers text; all else becomes what `plain` makes of it (arrays as
    lists, structs as dicts, the rest its repr).
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if INT_MIN <= value <= INT_MAX else str(int(value))
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.encode(value, "utf-8", "replace").decode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if depth <= 0:
        return repr(value)[:1000]
    if isinstance(value, list | tuple):
        return [settled(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {_key(key): settled(item, depth - 1) for key, item in value.items()}
    return settled(plain(value), depth - 1)


def _key(key: Any) -> str | int:
    if isinstance(key, int) and not isinstance(key, bool) and INT_MIN <= key <= INT_MAX:
        return int(key)
    return str(settled(key if isinstance(key, str) else str(key)))
