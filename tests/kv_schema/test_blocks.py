"""A chain of hashes over blocks of tokens: the same tokens, the same chain; one changed token, another from there on."""

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.schemas.kv import (
    BLOCK,
    block_hashes,
    chain,
    pack_hashes,
    unpack_hashes,
    worker_subject,
    worker_target,
)

TOKENS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=60)


@given(TOKENS, st.integers(1, 8), st.text(max_size=20))
def test_the_chain_is_what_its_definition_says(tokens: list[int], block: int, root: str) -> None:
    before, expected = root.encode(), []
    for start in range(0, len(tokens) - block + 1, block):
        words = struct.pack(f"<{block}i", *tokens[start : start + block])
        before = hashlib.sha256(before + words).digest()[:16]
        expected.append(before.hex())

    assert block_hashes(tokens, root, block) == expected


@given(TOKENS, st.integers(1, 8))
def test_a_prefix_has_a_prefix_of_the_chain_and_numpy_the_same_one(tokens: list[int], block: int) -> None:
    whole = block_hashes(tokens, "r", block)

    for count in range(len(tokens) + 1):
        assert block_hashes(tokens[:count], "r", block) == whole[: count // block]
        assert block_hashes(tokens, "r", block, upto=count) == whole[:count]
    assert block_hashes(np.array(tokens, np.int64), "r", block) == whole


@given(TOKENS, st.integers(1, 8), st.data())
def test_one_changed_token_changes_its_block_and_all_after_it(
    tokens: list[int], block: int, data: st.DataObject
) -> None:
    whole = block_hashes(tokens, "r", block)
    if not whole:
        return
    place = data.draw(st.integers(0, len(whole) * block - 1))
    changed = [*tokens]
    changed[place] ^= 1

    other = block_hashes(changed, "r", block)

    same = place // block
    assert other[:same] == whole[:same]
    assert all(left != right for left, right in zip(other[same:], whole[same:], strict=True))


@given(TOKENS, st.integers(1, 8), st.integers(1, 5))
def test_a_chain_goes_on_from_its_last_hash(tokens: list[int], block: int, cut: int) -> None:
    whole = block_hashes(tokens, "r", block)
    if len(whole) < cut:
        return

    more = chain(tokens[cut * block :], bytes.fromhex(whole[cut - 1]), block)
    assert [digest.hex() for digest in more] == whole[cut:]


@given(TOKENS)
def test_hashes_survive_being_packed(tokens: list[int]) -> None:
    hashes = block_hashes(tokens, "r", 2)

    assert unpack_hashes(pack_hashes(hashes)) == hashes
    assert len(pack_hashes(hashes)) == 16 * len(hashes)


def test_another_root_is_another_chain_and_a_block_that_is_not_full_has_no_hash() -> None:
    tokens = list(range(BLOCK + 1))

    assert block_hashes(tokens, "a") != block_hashes(tokens, "b")
    assert len(block_hashes(tokens, "a")) == 1
    assert block_hashes(tokens[: BLOCK - 1], "a") == []
    with pytest.raises(ValueError, match="at least one token"):
        block_hashes(tokens, "a", 0)


def test_a_worker_of_any_name_has_a_target_and_a_subject_of_four_tokens() -> None:
    assert worker_target("a.b c") == "kv.a.b c"
    assert worker_subject("a.b c", "info").count(".") == 3
