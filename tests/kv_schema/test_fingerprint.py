"""Two fingerprints are equal in every field or have another digest, and what differs is named."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.schemas.kv import Fingerprint, KvRef, Lora, differences

SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=5)
NAMES = st.text(max_size=5)
MAPS = st.dictionaries(NAMES, SCALARS, max_size=3)
FINGERPRINTS = st.builds(
    Fingerprint,
    engine=NAMES,
    build=NAMES,
    state_version=st.integers(0, 9),
    weights=NAMES,
    arch=NAMES,
    vocab=NAMES,
    type_k=NAMES,
    type_v=NAMES,
    layers=st.integers(0, 99),
    heads_kv=st.integers(0, 99),
    head_dim=st.integers(0, 99),
    v_transposed=st.booleans(),
    rope=MAPS,
    swa=MAPS,
    loras=st.lists(st.builds(Lora, sha256=NAMES, scale=st.floats(allow_nan=False)), max_size=2).map(tuple),
    extra=MAPS,
)


def made(**changed: Any) -> Fingerprint:
    values: dict[str, Any] = {
        "engine": "llama.cpp", "build": "1", "state_version": 2, "weights": "w", "arch": "llama", "vocab": "v",
        "type_k": "f16", "type_v": "f16", "layers": 2, "heads_kv": 2, "head_dim": 32, "rope": {"base": 1e4},
    }  # fmt: skip
    return Fingerprint(**{**values, **changed})


@given(FINGERPRINTS, FINGERPRINTS)
def test_digests_are_equal_if_and_only_if_nothing_differs(left: Fingerprint, right: Fingerprint) -> None:
    assert (left.digest == right.digest) == (differences(left, right) == ())
    assert differences(left, left) == ()


@given(FINGERPRINTS, FINGERPRINTS)
def test_what_differs_is_the_same_from_both_ends(left: Fingerprint, right: Fingerprint) -> None:
    there = {(name, repr(one), repr(other)) for name, one, other in differences(left, right)}
    back = {(name, repr(other), repr(one)) for name, one, other in differences(right, left)}

    assert there == back


@given(FINGERPRINTS)
def test_a_fingerprint_keeps_its_digest_over_the_wire(fingerprint: Fingerprint) -> None:
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(fingerprint), type=Fingerprint)

    assert again.digest == fingerprint.digest


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"weights": "x"}, ("weights", "w", "x")),
        ({"rope": {"base": 5e5}}, ("rope.base", 1e4, 5e5)),
        ({"rope": {}}, ("rope.base", 1e4, None)),
        ({"v_transposed": True}, ("v_transposed", False, True)),
        ({"loras": (Lora(sha256="l"),)}, ("loras.0.sha256", None, "l")),
        ({"extra": {"streams": 1}}, ("extra.streams", None, 1)),
    ],
)
def test_the_field_that_differs_is_named_with_both_values(changed: dict[str, Any], difference: tuple[Any, ...]) -> None:
    assert differences(made(), made(**changed))[0] == difference
    assert made().digest != made(**changed).digest


def test_the_order_of_a_mapping_is_no_difference_and_a_scale_is_one() -> None:
    assert made(rope={"a": 1, "b": 2}).digest == made(rope={"b": 2, "a": 1}).digest
    one, other = made(loras=(Lora(sha256="l", scale=1.0),)), made(loras=(Lora(sha256="l", scale=0.5),))
    assert differences(one, other) == (("loras.0.scale", 1.0, 0.5),)


def test_a_reference_is_plain_data_and_says_only_what_it_knows() -> None:
    ref = KvRef(transport="disk", place="/a", size=3)

    assert msgspec.msgpack.decode(msgspec.msgpack.encode(ref)) == {"transport": "disk", "place": "/a", "size": 3}
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(ref), type=KvRef) == ref
