"""What a replay socket answers is put together whole, whatever of it is dropped or refused on the way."""

from itertools import takewhile

import hypothesis.strategies as st
from hypothesis import given

from morphogen.consumers.kv_index.replay import Answer, gathered
from morphogen.consumers.kv_index.wire import REFUSED


class Kept:
    """A publisher that keeps numbers from `first` to before `end`; of an answer its queue has `room` for so many."""

    def __init__(self, first: int, end: int, large: set[int], room: int) -> None:
        self.messages = {number: b"%d" % number for number in range(first, end)}
        self.large, self.room = large, room

    def ask(self, start: int) -> Answer:
        due = [number for number in self.messages if number >= start]
        found: dict[int, bytes] = {}
        for number in due[: self.room]:
            if number in self.large:
                return Answer(found, "refused")
            found[number] = self.messages[number]
        return Answer(found, "whole" if len(due) <= self.room else "silent")


@given(
    st.integers(0, 6),
    st.integers(0, 20),
    st.sets(st.integers(0, 25), max_size=6),
    st.integers(2, 30),
    st.integers(0, 8),
)
def test_all_that_is_kept_comes_and_what_is_refused_has_its_place(
    first: int, count: int, large: set[int], room: int, start: int
) -> None:
    kept = Kept(first, first + count, large, room)

    found = gathered(kept.ask, start)

    due = {number: payload for number, payload in kept.messages.items() if number >= start}
    leading = list(takewhile(large.__contains__, due))
    for number in leading[:-1]:
        del due[number]  # whether the publisher has them cannot be known
    assert found is not None
    assert dict(found) == due | dict.fromkeys(due.keys() & large, REFUSED)


def test_what_refuses_for_ever_is_not_asked_for_ever() -> None:
    asked: list[int] = []

    def ask(number: int) -> Answer:
        asked.append(number)
        return Answer(end="refused")

    assert gathered(ask, 7) is None
    assert len(asked) < 100


def test_nobody_who_answers_is_none_and_an_empty_answer_is_empty() -> None:
    assert gathered(lambda number: Answer(), 0) is None
    assert gathered(lambda number: Answer(end="whole"), 0) == []
