"""Choose a token from logits, as a pure function of the logits, the settings, the seed and the position.

llama.cpp's sampler chain keeps a random state that cannot be read out. Here the random number of a position follows
from seed and position alone (a counter-based generator), so a generation that was broken off goes on with the same
tokens, in another process too, with nothing to be saved but the settings.
"""

import math
import numbers
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How tokens are chosen. A temperature of 0 takes the likeliest one."""

    temperature: float = 0.0
    top_k: int = 0  # 0 keeps all
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    repeat_last: int = 64  # tokens that the penalty looks back
    seed: int = 0

    def __post_init__(self) -> None:
        if not math.isfinite(self.temperature) or not math.isfinite(self.repeat_penalty):
            raise ValueError(
                f"temperature and repeat_penalty are numbers, not {self.temperature:g} and {self.repeat_penalty:g}"
            )
        if not -(2**63) <= self.seed < 2**64:
            raise ValueError(f"a seed has 64 bits, {self.seed} has more")
        if self.temperature < 0 or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1 or self.repeat_penalty <= 0:
            raise ValueError(
                f"temperature is from 0, top_p in (0, 1], min_p in [0, 1], repeat_penalty above 0, not "
                f"{self.temperature:g}, {self.top_p:g}, {self.min_p:g}, {self.repeat_penalty:g}"
            )


_WHOLE = ("top_k", "repeat_last", "seed")


def sampling_of(**given: Any) -> Sampling:
    """Return how tokens are chosen by what a caller gave: None is the default. Raises ValueError for what is no number."""
    chosen: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in _WHOLE:
            chosen[name] = whole(name, value)
        elif isinstance(value, numbers.Real):  # numpy's are among them
            chosen[name] = float(value)
        else:
            raise ValueError(f"{name} is a number, not {value!r}")
    return Sampling(**chosen)


def whole(name: str, value: Any) -> int:
    """Return a whole number as Python's own. Raises ValueError for what is none."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is a whole number, not {value!r}") from None


def pick(logits: "npt.NDArray[Any]", sampling: Sampling, position: int, recent: Sequence[int] = ()) -> int:
    """Return the token for `position`, which counts the tokens before it; `recent` are the newest of them.

    Of equal logits the smaller id comes first, so that the choice is the same everywhere.
    """
    row = np.asarray(logits, np.float64)
    if sampling.repeat_penalty != 1.0 and sampling.repeat_last > 0:
        row = row.copy()
        seen = np.unique(np.asarray(recent[-sampling.repeat_last :], np.int64))
        row[seen] = np.where(row[seen] > 0, row[seen] / sampling.repeat_penalty, row[seen] * sampling.repeat_penalty)
    if sampling.temperature == 0:
        return int(np.argmax(row))
    order = np.argsort(-row, kind="stable")
    if sampling.top_k > 0:
        order = order[: sampling.top_k]
    with np.errstate(over="ignore"):  # next to nothing of a temperature: all but the likeliest have no weight
        weights = np.exp((row[order] - row[order[0]]) / sampling.temperature)
    weights /= weights.sum()
    keep = np.ones(len(order), bool)
    if sampling.top_p < 1:
        keep &= np.cumsum(weights) - weights < sampling.top_p
    if sampling.min_p > 0:
        keep &= weights >= sampling.min_p * weights[0]
    order, weights = order[keep], weights[keep]
    edges = np.cumsum(weights)
    place = int(np.searchsorted(edges, uniform(sampling.seed, position) * edges[-1], side="right"))
    return int(order[min(place, len(order) - 1)])


def uniform(seed: int, position: int) -> float:
    """Return the random number in [0, 1) of a position: the same for ever."""
    draw = np.random.Generator(np.random.Philox(key=seed % 2**128, counter=position)).random()
    return float(draw)
