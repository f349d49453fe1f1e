"""What the engine remembers of a run, as bytes and back."""

from typing import Any

import msgspec
import numpy as np

from .columns import packed, unpacked
from .engine import RunState
from .running import TOTALS, Carried, SoFar
from .windows import Past


def plain(state: RunState) -> dict[str, Any]:
    """Return a state as values that msgpack holds."""
    return {
        "clock": state.clock,
        "books": [[list(per), [list(key) for key in book]] for per, book in state.books.items()],
        "past": [_past(one) for one in state.past],
        "truth": {name: truth.tobytes() for name, truth in state.truth.items()},
    }


def state_of(found: dict[str, Any]) -> RunState:
    """Return the state that `plain` was given."""
    books = {
        tuple(per): {tuple(map(_key, key)): number for number, key in enumerate(keys)} for per, keys in found["books"]
    }
    truth = {name: np.frombuffer(data, np.int8) for name, data in found["truth"].items()}
    return RunState(found["clock"], books, tuple(_past_of(one) for one in found["past"]), truth)


def to_bytes(states: dict[str, RunState], **more: Any) -> bytes:
    """Return the states of a run, by case, and whatever else is kept with them."""
    return msgspec.msgpack.encode({"cases": {case: plain(state) for case, state in states.items()}, **more})


def from_bytes(data: bytes) -> tuple[dict[str, RunState], dict[str, Any]]:
    """Return the states of a run and what else was kept with them."""
    found: dict[str, Any] = msgspec.msgpack.decode(data)
    cases = {case: state_of(one) for case, one in found.pop("cases").items()}
    return cases, found


def _past(one: Past | SoFar | None) -> Any:
    if one is None:
        return None
    if isinstance(one, Past):
        arrays = (one.counts, one.group, one.index, one.clock)
        return ["window", [array.astype(np.int64).tobytes() for array in arrays], [packed(arg) for arg in one.args]]
    return ["all", one.counts.astype(np.int64).tobytes(), [_carried(arg) for arg in one.args]]


def _past_of(found: Any) -> Past | SoFar | None:
    if found is None:
        return None
    if found[0] == "window":
        counts, group, index, clock = (np.frombuffer(data, np.int64) for data in found[1])
        return Past(counts, group, index, clock, tuple(map(unpacked, found[2])))
    return SoFar(np.frombuffer(found[1], np.int64), tuple(map(_carried_of, found[2])))


def _carried(one: Carried) -> list[Any]:
    every = None if one.every is None else [one.every[0].tobytes(), one.every[1].astype(np.int64).tobytes()]
    return [[one.totals[name].tobytes() for name in TOTALS], packed(one.first), packed(one.last), every]


def _carried_of(found: list[Any]) -> Carried:
    totals = {name: np.frombuffer(data) for name, data in zip(TOTALS, found[0], strict=True)}
    every = None if found[3] is None else (np.frombuffer(found[3][0]), np.frombuffer(found[3][1], np.int64))
    return Carried(totals, unpacked(found[1]), unpacked(found[2]), every)


def _key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
