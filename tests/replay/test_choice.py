"""Choosing events by type never changes the bytes of those that are kept."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.replay.choice import Choice
from morphogen.schemas import Record, decode_frame, encode, encode_frame, verify_frame
from morphogen.schemas.frames import FORMAT

KINDS = ["health.layer", "health.slot", "metrics.scalars", "log.line"]
records = st.lists(st.tuples(st.sampled_from(KINDS), st.binary(max_size=20)), min_size=1, max_size=12)


def build(drawn: list[tuple[str, bytes]]) -> bytes:
    """Return a frame with these types and bodies, numbered from 5."""
    made = [Record(5 + i, kind, 1, i, i, msgspec.Raw(encode({"blob": body}))) for i, (kind, body) in enumerate(drawn)]
    return encode_frame(made, run="r", attempt=2, rank=3, writer="cd" * 8, family="mixed")


@given(records, st.lists(st.sampled_from([*KINDS, "health.*", "*", "log.*", "none"]), max_size=3))
def test_kept_records_keep_counters_bytes_and_checksums(drawn: list[tuple[str, bytes]], patterns: list[str]) -> None:
    data = build(drawn)
    frame = decode_frame(data, 9, 99)
    choice = Choice(patterns)

    thinned = choice.thin(frame, data, replay="again")

    wanted = [record for record in frame.records if choice.wants(record.type)]
    if not wanted:
        assert thinned is None
        return
    assert thinned is not None
    kept, whole = thinned
    verify_frame(whole)
    read = decode_frame(whole, 9, 99)
    assert read == kept
    assert [(r.n, r.type, bytes(r.body)) for r in read.records] == [(r.n, r.type, bytes(r.body)) for r in wanted]
    assert read.replay == "again"
    assert (read.run, read.attempt, read.rank, read.writer, read.family) == ("r", 2, 3, "cd" * 8, "mixed")


@given(records)
def test_a_frame_of_which_all_is_wanted_passes_untouched(drawn: list[tuple[str, bytes]]) -> None:
    data = build(drawn)

    thinned = Choice().thin(decode_frame(data), data)

    assert thinned is not None
    assert thinned[1] is data


def test_a_frame_written_by_another_library_is_thinned_too() -> None:
    event = {"body": {"x": 1}, "type": "a.b", "n": 1, "version": 1, "step": None, "time": 5}
    raw = msgspec.msgpack.encode(
        {
            "records": [1, 2, event, 1, 2, {**event, "n": 2, "type": "c.d"}],
            "format": FORMAT, "run": "r", "attempt": 1, "rank": 0, "writer": "w",
            "family": "f", "first": 1, "last": 2, "replay": None,
        }
    )  # fmt: skip

    thinned = Choice(["c.*"]).thin(decode_frame(raw), raw)

    assert thinned is not None
    verify_frame(thinned[1])
    assert [record.n for record in decode_frame(thinned[1]).records] == [2]


@pytest.mark.parametrize(
    ("patterns", "families"),
    [
        ([], None),
        (["health.*"], ("health",)),
        (["health.*", "log.line"], ("health", "log")),
        (["*"], None),
        (["h*.x"], None),
    ],
)
def test_the_broker_is_asked_only_for_families_that_can_match(
    patterns: list[str], families: tuple[str, ...] | None
) -> None:
    assert Choice(patterns).families == families
