"""Where the records of frames begin, by the lengths that they say, without a step for each."""

from struct import Struct

import numpy as np

from .lockstep import Ints

RECORD_HEAD = 10
"""Bytes before the map of each record: its length and its checksum."""

_SIDE_BY_SIDE = 16  # frames of many lengths from which it is quicker to go through all of them at once
_SHORT = 16  # records in a run of equal lengths on average; below it a step for each costs less
_FIRST_LOOK, _LONGEST_LOOK = 64, 1 << 14  # records whose lengths are compared at once
_LENGTH = Struct(">I")


def record_starts(data: bytes, places: Ints, ends: Ints, counts: Ints) -> Ints | None:
    """Return where each record begins; frame i has `counts[i]` of them, from `places[i]` to `ends[i]`, both in `data`.

    None where they do not fill their frame exactly. `data` ends with the padding that `lockstep` asks.
    """
    lengths = np.ndarray((len(data) - 3,), ">u4", data, strides=(1,))
    found: list[Ints | None] = []
    for place, end, count in zip(places.tolist(), ends.tolist(), counts.tolist(), strict=True):
        found.append(_in_runs(data, lengths, place, end, count))
    odd = [i for i, starts in enumerate(found) if starts is None]
    if not odd or len(odd) < _SIDE_BY_SIDE:
        for i in odd:
            found[i] = _one_by_one(data, int(places[i]), int(ends[i]), int(counts[i]))
    else:
        for i, starts in zip(odd, _side_by_side(lengths, places[odd], ends[odd], counts[odd]), strict=True):
            found[i] = starts
    whole = [starts for starts in found if starts is not None]
    if len(whole) < len(found):
        return None
    starts = np.concatenate(whole)
    last = starts[np.cumsum(counts) - 1]
    return starts if (last + RECORD_HEAD + lengths[last + 1] == ends).all() else None


def _in_runs(data: bytes, lengths: Ints, place: int, end: int, count: int) -> Ints | None:
    """Go from run to run of records that are equally long; None where these are short, or do not fit."""
    pieces: list[Ints] = []
    at, left, look = place, count, _FIRST_LOOK
    while left:
        if len(pieces) * _SHORT > count - left + 4 * _SHORT or at >= end:
            return None
        width = RECORD_HEAD + int(lengths[at + 1])
        some = min(left, look, (end - at) // width)
        if not some:
            return None
        alike = np.ndarray((some,), ">u4", data, at + 1, (width,)) == width - RECORD_HEAD
        run = some if alike.all() else int(alike.argmin())
        look = min(look * 4, _LONGEST_LOOK) if run == some else _FIRST_LOOK
        pieces.append(np.arange(at, at + run * width, width))
        at += run * width
        left -= run
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _one_by_one(data: bytes, place: int, end: int, count: int) -> Ints | None:
    found, at = [], place
    for _ in range(count):
        if at >= end:
            return None
        found.append(at)
        at += RECORD_HEAD + _LENGTH.unpack_from(data, at + 1)[0]
    return np.array(found, np.int64)


def _side_by_side(lengths: Ints, places: Ints, ends: Ints, counts: Ints) -> list[Ints]:
    """Go through frames at once, a record of each at a time; one that leaves its frame stays at the end of it."""
    starts = np.empty(int(counts.sum()), np.int64)
    first = np.cumsum(counts) - counts
    order = np.argsort(-counts, kind="stable")
    slot, now, ends, falling = first[order], places[order], ends[order], counts[order]
    # frames that have a record of that number
    left = np.searchsorted(-falling, -np.arange(falling[0]), side="left").tolist()
    for number in range(int(falling[0])):
        if left[number] < len(now):
            slot, now, ends = slot[: left[number]], now[: left[number]], ends[: left[number]]
        starts[slot + number] = now
        now = np.minimum(now + lengths[now + 1] + RECORD_HEAD, ends)
    return np.split(starts, first[1:])
