"""Where records begin is found in runs, one by one or side by side, and always at the same places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.projections.fold import starts
from morphogen.consumers.projections.fold.lockstep import PAD
from morphogen.consumers.projections.fold.starts import RECORD_HEAD, record_starts

LENGTHS = st.lists(
    st.one_of(
        st.lists(st.integers(1, 40), min_size=1, max_size=30),
        st.tuples(st.integers(1, 300), st.integers(1, 400)).map(lambda run: [run[0]] * run[1]),
        st.tuples(st.integers(1, 9), st.integers(1, 60)).map(lambda two: [two[0], two[0] + 1] * two[1]),
    ),
    min_size=1,
    max_size=40,
)
"""Lengths of the records of some frames."""


def laid_out(frames: list[list[int]], gap: int) -> tuple[bytes, list[int], list[int], list[int]]:
    """Return frames end to end, where the records of each begin and end, and where each record begins."""
    data, places, ends, wanted = bytearray(), [], [], []
    for lengths in frames:
        data += b"\xaa" * gap
        places.append(len(data))
        for length in lengths:
            wanted.append(len(data))
            data += b"\xce" + length.to_bytes(4, "big") + b"\xce" + b"\xff" * 4 + b"\xff" * length
        ends.append(len(data))
    return bytes(data) + PAD, places, ends, wanted


def found(data: bytes, places: list[int], ends: list[int], counts: list[int]) -> list[int] | None:
    each = record_starts(data, *(np.array(some, np.int64) for some in (places, ends, counts)))
    return None if each is None else each.tolist()


@given(LENGTHS, st.integers(0, 60), st.sampled_from([0, starts._SIDE_BY_SIDE]))
def test_every_record_is_found(frames: list[list[int]], gap: int, side_by_side: int) -> None:
    data, places, ends, wanted = laid_out(frames, gap)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starts, "_SIDE_BY_SIDE", side_by_side)
        assert found(data, places, ends, [len(lengths) for lengths in frames]) == wanted


@given(LENGTHS, st.sampled_from([0, starts._SIDE_BY_SIDE]), st.data())
def test_records_that_do_not_fill_their_frame_are_refused(
    frames: list[list[int]], side_by_side: int, data: st.DataObject
) -> None:
    laid, places, ends, wanted = laid_out(frames, 7)
    counts = [len(lengths) for lengths in frames]
    which = data.draw(st.integers(0, len(wanted) - 1), label="record")
    other = data.draw(st.one_of(st.integers(0, 500), st.just(2**32 - 1)), label="length")
    changed = bytearray(laid)
    true = int.from_bytes(changed[wanted[which] + 1 : wanted[which] + 5], "big")
    changed[wanted[which] + 1 : wanted[which] + 5] = other.to_bytes(4, "big")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starts, "_SIDE_BY_SIDE", side_by_side)
        each = found(bytes(changed), places, ends, counts)
        assert (each == wanted) if other == true else each is None or each != wanted
        counts[data.draw(st.integers(0, len(counts) - 1), label="frame")] += 1
        assert found(laid, places, ends, counts) is None


def test_a_head_behind_the_last_record_is_within_reach() -> None:
    assert len(PAD) >= RECORD_HEAD
