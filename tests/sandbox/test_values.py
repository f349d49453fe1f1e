"""The hash of values: the same for the same, in whatever order a dict was made, and for keys of any types."""

import random
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from morphogen.kernels.sandbox import canonical, value_sha256

SIMPLE = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
KEYS = SIMPLE | st.dates() | st.decimals(allow_nan=False) | st.tuples(SIMPLE, SIMPLE)
VALUES = st.recursive(SIMPLE, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=12)


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, list):
        return [shuffled(item, chance) for item in value]
    if isinstance(value, dict):
        items = list(value.items())
        chance.shuffle(items)
        return {key: shuffled(item, chance) for key, item in items}
    return value


@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_in_which_a_dict_was_made_does_not_matter(value: Any, chance: random.Random) -> None:
    assert canonical(value) == canonical(shuffled(value, chance))


def test_keys_of_types_that_cannot_be_compared_are_in_one_order() -> None:
    mixed: Any = {None: 1, "a": 6, b"x": 2, float("nan"): 3, 1: 4, (1, "b"): 5, -2.5: 7}
    assert value_sha256(mixed) == value_sha256(dict(reversed(mixed.items())))


def test_numbers_come_first_then_text_each_in_its_order() -> None:
    mixed: Any = {"b": 1, 10: 2, "a": 3, -1: 4, 9: 5, "B": 6}
    expected = {-1: 4, 9: 5, 10: 2, "B": 6, "a": 3, "b": 1}
    assert canonical(mixed) == msgspec.msgpack.encode(expected)
