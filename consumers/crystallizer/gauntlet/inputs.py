"""Inputs that a draft has not seen, from those that were recorded: drawn by a seeded generator, the same on every machine."""

import random
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from morphogen.kernels.sandbox import value_sha256
from morphogen.schemas.values import INT_MAX, INT_MIN

from ..annotations import Type, fits, infer

_WRONG: tuple[Any, ...] = (None, True, 7, -2.5, "", "text", b"bytes", [], [None], {}, {"key": 1})
_TEXTS = ("", " ", "a", "Ä€漢", "x" * 300, "a,b\n1,2\n", "-1", "0", "é", "../a", "a b", "'", '"', "%s {x}")


def crossed(recorded: Sequence[Mapping[str, Any]], rng: random.Random, count: int) -> Iterator[dict[str, Any]]:
    """Yield recorded values in combinations that were not recorded, each parameter from an execution of its own."""
    seen = {value_sha256(dict(one)) for one in recorded}
    names = sorted({name for one in recorded for name in one})
    for _ in range(count * 8):
        drawn = {
            name: rng.choice(having)[name] for name in names if (having := [one for one in recorded if name in one])
        }
        key = value_sha256(drawn)
        if key not in seen:
            seen.add(key)
            yield drawn


def edges(recorded: Sequence[Mapping[str, Any]], rng: random.Random, count: int) -> Iterator[dict[str, Any]]:
    """Yield recorded parameters with one of them at an edge of its type."""
    for _ in range(count * 8):
        base = dict(rng.choice(recorded))
        if not base:
            return
        name = rng.choice(sorted(base))
        values = [one[name] for one in recorded if name in one]
        yield {**base, name: drawn(infer(values), rng, base[name], values)}


def wrong(recorded: Sequence[Mapping[str, Any]], rng: random.Random, count: int) -> Iterator[dict[str, Any]]:
    """Yield recorded parameters with one of them of another type."""
    names = sorted({name for one in recorded for name in one})
    for at in range(count if names else 0):
        base = dict(rng.choice(recorded))
        name = names[at % len(names)]
        kind = infer(one[name] for one in recorded if name in one)
        others = [value for value in _WRONG if not fits(kind, value)]
        if others:
            yield {**base, name: rng.choice(others)}


def drawn(kind: Type, rng: random.Random, like: Any, others: Sequence[Any] = ()) -> Any:
    """Return a value of a type, at its edges more often than not; `like` is one that was recorded, `others` are the rest."""
    match kind.name:
        case "bool":
            return rng.random() < 0.5
        case "int":
            return (
                rng.choice([0, 1, -1, 2, like + 1, like - 1, -like, 10**6]) if type(like) is int else rng.randint(-9, 9)
            )
        case "float":
            return rng.choice(
                [0.0, -0.0, 1e-9, -1.5, 1e12, 0.1, float(like) * 1.5 if type(like) in {int, float} else 3.0]
            )
        case "str":
            return rng.choice([*_TEXTS, _turned(like, rng)] if isinstance(like, str) else _TEXTS)
        case "bytes":
            return rng.choice([b"", b"\0\xff", b"a"])
        case "list":
            items = list(like) if isinstance(like, list | tuple) else []
            pool = [item for one in others if isinstance(one, list | tuple) for item in one] or items
            mixed = [rng.choice(pool) for _ in range(rng.randint(3, 8))] if pool else []
            more = [drawn(kind.parts[0], rng, items[0] if items else None) for _ in range(rng.randint(0, 3))]
            return rng.choice([[], items[:1], items[::-1], mixed, items + mixed, items + more])
        case "dict":
            items = list(like.items()) if isinstance(like, Mapping) else []
            return dict(rng.sample(items, rng.randint(0, len(items))))
        case "union":
            return drawn(rng.choice(kind.parts), rng, like, others)
        case "literal":
            return rng.choice(kind.values)
        case _:
            return like


def changed(result: Any, rng: random.Random) -> Any:
    """Return an answer of a tool as another world might have given it: of the same type, less of it or other."""
    if isinstance(result, bool):
        return not result
    if isinstance(result, int):
        others = (0, -result, result + 1, result * 10)
        return rng.choice([one for one in others if INT_MIN <= one <= INT_MAX])
    if isinstance(result, float):
        return rng.choice([0, -result, result + 1, result * 10])
    if isinstance(result, str):
        lines = result.splitlines(keepends=True)
        kept = [line for line in lines if rng.random() < 0.7]
        return rng.choice(["", result[: len(result) // 2], "".join(kept), _turned(result, rng)])
    if isinstance(result, bytes):
        return rng.choice([b"", result[: len(result) // 2]])
    if isinstance(result, list | tuple):
        items = list(result)
        some = [changed(item, rng) if rng.random() < 0.3 else item for item in items]
        return rng.choice([[], items[: len(items) // 2], items[::-1], some])
    if isinstance(result, Mapping):
        return {key: item for key, item in result.items() if rng.random() < 0.7}
    return result


def _turned(text: str, rng: random.Random) -> str:
    if not text:
        return rng.choice(string.ascii_letters)
    at = rng.randrange(len(text))
    return f"{text[:at]}{rng.choice(string.printable)}{text[at + 1 :]}"
