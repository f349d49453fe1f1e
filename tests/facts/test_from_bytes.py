"""Records and items that are read many at once are those that are read one by one, whatever the bytes are."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.consumers.projections.facts import own_columns
from morphogen.consumers.projections.facts.case_tables import shown_column
from morphogen.consumers.projections.facts.own_events import OwnEvents
from morphogen.consumers.projections.fold import envelopes, opening
from morphogen.consumers.projections.fold.batch import Batch, Lane
from morphogen.schemas import Record, encode, encode_frame
from morphogen.schemas.knowledge.program import load_text
from morphogen.schemas.knowledge.stream import Lists

from ..projections.conftest import Stored

PROGRAM = load_text("""
system Bytes { trace_schema { variant Item {
  case Plain { name: string, x: float, n: int?, ok: boolean, kind: "a" | "b", note: string? }
} } }
""")
TYPE = "trace.bytes.plain"
WHOLE = st.sampled_from(
    [0, 1, 127, 128, 255, 256, 65535, 65536, 2**32, 2**63 - 1, -1, -32, -33, -129, -(2**31), -(2**63)]
)
TEXTS = st.sampled_from(["", "a", "b", "abcdefgh", "a\0", "é" * 20, "x" * 70, "y" * 300])
BODIES = st.fixed_dictionaries(
    {
        "name": TEXTS,
        "x": st.one_of(st.floats(allow_nan=False), st.integers(-300, 300)),
        "n": st.one_of(WHOLE, st.none()),
        "ok": st.booleans(),
        "kind": st.sampled_from(["a", "b"]),
    },
    optional={
        "note": st.one_of(TEXTS, st.none()),
        "origin": st.sampled_from(["measured", "simulated"]),
        "source": TEXTS,
        "other": st.one_of(st.none(), st.booleans(), st.floats(), WHOLE, TEXTS),
    },
)
ODD = st.sampled_from([
    {"name": 1}, [1, 2], {}, {"name": "a", "x": "b", "n": 1, "ok": True, "kind": "a"},
    {"name": "a", "x": 1.0, "n": 2**63, "ok": True, "kind": "a"}, {"name": "a", "x": 2**64 - 1, "n": 1, "ok": True, "kind": "b"},
    {"name": "a", "x": 1.0, "n": 1, "ok": None, "kind": "a"}, {"name": "a", "x": 1.0, "n": 1, "ok": True, "kind": "c"},
    {"name": "a", "x": 1.0, "n": 1, "ok": True, "kind": "a", "origin": "guessed"},
    {"kind": "a", "ok": False, "n": 3, "x": 1.0, "name": "turned round", "list": [1, {"a": 2}]},
])  # fmt: skip
RECORDS = st.tuples(
    st.sampled_from([TYPE, TYPE, TYPE, "other.kind"]), st.one_of(BODIES, BODIES, BODIES, ODD), st.one_of(WHOLE, st.none()), WHOLE,
    st.sampled_from([None, None, "a" * 16 + ".trace.1"]), st.integers(1, 3),
)  # fmt: skip


@contextmanager
def at_once(yes: bool) -> Iterator[None]:
    """Read many at once however few they are, or never."""
    far = 1 << 62
    with (
        patch.object(opening, "LEAST", 0 if yes else far),
        patch.object(envelopes, "_FEW", 2),
        patch("morphogen.consumers.projections.facts.own_events.LEAST", 1 if yes else far),
        patch.object(own_columns, "LEAST", 1),
    ):
        yield


def messages_of(records: list[Any], sizes: list[int], firsts: list[int]) -> list[Stored]:
    """Return records as messages; a first number may go back behind what came before."""
    out, left, sizes_of, firsts_of = [], list(records), itertools.cycle(sizes), itertools.cycle(firsts)
    while left:
        size, first = next(sizes_of), next(firsts_of)
        some, left = left[:size], left[size:]
        made = [
            Record(first + i, kind, version, step, time, msgspec.Raw(encode(body)), cause)
            for i, (kind, body, step, time, cause, version) in enumerate(some)
        ]
        data = encode_frame(made, run="r", attempt=1, rank=0, writer="w" * 16, family="trace")
        out.append(Stored(len(out) + 1, 0, "", data))
    return out


def said(batch: Batch) -> list[Any]:
    """Return what a batch says of its records."""
    step = batch.step
    missing = np.zeros(len(batch), np.bool_) if step.missing is None else step.missing
    steps = [None if gone else value for value, gone in zip(step.numbers.tolist(), missing.tolist(), strict=True)]
    columns = (batch.seq, batch.idx, batch.n, batch.time, batch.version, batch.attempt)
    bodies = batch.bodies(np.arange(len(batch)))
    return [
        *(column.tolist() for column in columns), steps, batch.kinds.values(), batch.run.values(), batch.types,
        [bodies.raw(row) for row in range(len(batch))], bodies.raws(), batch.cause.values(),
        [part.length for part in batch.parts], [part.start for part in batch.parts],
    ]  # fmt: skip


def items_of(batch: Batch) -> list[Any]:
    """Return what the items of a batch are, as tables show them."""
    read = OwnEvents(PROGRAM.case("Plain")).read(batch)
    shown = []
    for name, value in read.fields.items():
        assert not isinstance(value, Lists)
        arrow = shown_column(value)
        shown.append((name, value.plain(np.arange(len(value))), getattr(arrow, "null_count", None)))
    every = np.arange(len(read.at))
    return [read.at.tolist(), repr(shown), read.origin.plain(every), read.source.plain(every), list(read.rejected)]


@settings(max_examples=150)
@given(
    st.lists(RECORDS, min_size=1, max_size=24),
    st.lists(st.integers(1, 9), min_size=1),
    st.lists(st.integers(1, 20), min_size=1),
)
def test_a_batch_and_its_items_are_the_same_however_they_are_read(
    records: list[Any], sizes: list[int], firsts: list[int]
) -> None:
    messages = messages_of(records, sizes, firsts)
    found = []
    for yes in (True, False):
        with at_once(yes):
            lanes: dict[Lane, int] = {}
            batch = Batch.read(messages, lanes=lanes)
            found.append((said(batch), items_of(batch), lanes))

    assert found[0] == found[1]


@settings(max_examples=60)
@given(st.lists(RECORDS, min_size=1, max_size=4), st.data())
def test_bytes_that_were_changed_are_read_as_they_are_one_by_one(records: list[Any], data: st.DataObject) -> None:
    (message,) = messages_of(records, [len(records)], [1])
    changed = bytearray(message.data)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.integers(0, 4)) == 0:
        changed = changed[: data.draw(st.integers(1, len(changed)))]
    some = [Stored(1, 0, "", bytes(changed)), message]
    with at_once(False):
        try:
            slow = Batch.read(some)
        except UnicodeDecodeError:
            return
    with at_once(True):
        quick = Batch.read(some)

    assert [one.reason for one in quick.unreadable] == [one.reason for one in slow.unreadable]
    if quick._envelopes is not None:
        assert quick.n.tolist() == slow.n.tolist()
        assert quick.kinds.values() == slow.kinds.values()
        assert quick.cause.values() == slow.cause.values()
        assert quick.bodies(np.arange(len(quick))).raws() == slow.bodies(np.arange(len(slow))).raws()
        assert items_of(quick) == items_of(slow)


@pytest.mark.parametrize("frames", [3, 40])
def test_many_records_are_read_at_once(frames: int) -> None:
    body = {"name": "a", "x": 1.5, "n": 3, "ok": True, "kind": "a"}
    records = [(TYPE, {**body, "n": i * 50}, i, i + 10**18, None, 1) for i in range(frames * 200)]
    messages = messages_of(records, [200], [1])
    batch = Batch.read(messages)

    assert batch._envelopes is not None
    assert batch.step.numbers.tolist() == list(range(frames * 200))
    assert [one.fields["n"].plain(np.array([5])) for one in [OwnEvents(PROGRAM.case("Plain")).read(batch)]] == [[250]]
