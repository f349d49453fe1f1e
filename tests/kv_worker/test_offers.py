"""An offer is taken up or called off, never both, whoever asks when and how often."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from morphogen.consumers.kv.offers import Offers
from morphogen.consumers.kv.wire import Stands, Stood, pack, unpack

STEPS = st.lists(
    st.tuples(st.sampled_from(["make", "stands", "call_off", "over"]), st.sampled_from(["x", "y"])), max_size=20
)


@given(STEPS)
def test_who_is_told_that_it_stands_is_never_called_off(steps: list[tuple[str, str]]) -> None:
    offers = Offers()
    state: dict[str, str] = {}
    for step, attempt in steps:
        match step:
            case "make" if attempt not in state:  # each attempt is made once
                offers.make(attempt)
                state[attempt] = "open"
            case "stands":
                told = unpack(asyncio.run(offers.stands(pack(Stands(attempt=attempt)))), Stood).stands
                assert told == (state.get(attempt) in {"open", "taken"})
                if told:
                    state[attempt] = "taken"
            case "call_off":
                assert offers.call_off(attempt) == (state.get(attempt) != "taken")
                if state.get(attempt) == "open":
                    state[attempt] = "off"
            case "over":
                offers.over(attempt)
                if attempt in state:
                    state[attempt] = "over"
