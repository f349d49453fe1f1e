"""Numbers and vectors arrive exactly as they were."""

import argparse
import enum
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphogen.schemas import (
    EncodeError,
    LayerHealth,
    Metrics,
    Names,
    decode,
    decode_event,
    encode,
    line_of,
    plain,
    sound,
    vector,
)

numbers = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(-(2**63), 2**64 - 1))


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return struct.pack(">d", one) == struct.pack(">d", other) or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and bool(one == other)


@given(st.dictionaries(st.text(max_size=30), numbers, max_size=40))
def test_metrics_round_trip_exactly(values: dict[str, int | float]) -> None:
    event = decode_event("metrics.scalars", 1, Metrics(values=values).encode())

    assert isinstance(event, Metrics)
    assert list(event.values) == list(values)
    assert all(same(values[key], event.values[key]) for key in values)


DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]


@given(st.sampled_from(DTYPES), st.binary(max_size=64))
def test_vectors_keep_every_bit_and_their_dtype(dtype: str, raw: bytes) -> None:
    size = np.dtype(dtype).itemsize
    array = np.frombuffer(raw[: len(raw) // size * size], np.uint8 if dtype == "?" else dtype)
    array = array.astype(bool) if dtype == "?" else array

    back = decode(encode(array))

    assert array.dtype == back.dtype
    assert array.tobytes() == back.tobytes()


@pytest.mark.parametrize("count", [0, 1, 10_000])
def test_empty_and_ten_thousand_layer_vectors(count: int) -> None:
    layers = Names(f"blöck.{index}.ähnlich" for index in range(count))
    sent = LayerHealth(layers=layers, grad_norm=np.full(count, np.nan, np.float32), missing={"dead_share": [0]})

    back = decode_event("health.layer", 1, sent.encode())

    assert isinstance(back, LayerHealth)
    assert layers == back.layers
    assert back.grad_norm is not None
    assert np.isnan(back.grad_norm).all()
    assert len(back.grad_norm) == count
    assert back.weight_norm is None


def test_equal_names_decode_to_one_object() -> None:
    assert decode(encode(Names(["a", "b"]))) is decode(encode(Names(["a", "b"])))


@pytest.mark.parametrize(
    "value",
    [np.float32(0.1), np.float64("nan"), np.int64(2**63 - 1), np.uint64(2**64 - 1), np.bool_(True), np.array(3.5)],
)
def test_numpy_scalars_become_their_python_value(value: Any) -> None:
    assert same(value.item(), decode(encode({"v": value}))["v"])


def test_torch_scalars_and_bf16_tensors() -> None:
    torch = pytest.importorskip("torch")
    values = {"loss": torch.tensor(0.25, requires_grad=True), "bf16": torch.tensor(1.5, dtype=torch.bfloat16)}

    assert {"loss": 0.25, "bf16": 1.5} == decode(encode(values))

    back = decode(encode(torch.tensor([1.0, -2.5, float("inf")], dtype=torch.bfloat16)))
    assert back.dtype == np.float32
    assert back.tolist() == [1.0, -2.5, math.inf]


def test_big_endian_and_strided_arrays_are_taken() -> None:
    assert decode(encode(np.arange(6, dtype=">f8")[::2])).tolist() == [0.0, 2.0, 4.0]
    assert vector([1, 2]).tolist() == [1, 2]
    assert vector([]).dtype == np.float32 or vector([]).size == 0


@pytest.mark.parametrize("value", [np.zeros((2, 2)), np.array(["a"]), object(), 2**64, -(2**63) - 1, 1j])
def test_what_an_event_cannot_hold_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(EncodeError) as caught:
        encode({"v": value})

    assert "\n" not in str(caught.value)


def test_a_configuration_may_hold_anything() -> None:
    @dataclass
    class Point:
        x: int = 1

    loop: dict[str, Any] = {}
    loop["self"] = loop
    config = {
        "lr": np.float32(0.5), "path": Path("a/b"), "point": Point(), "huge": 10**30, 3: {"set": {1}},
        "args": argparse.Namespace(a=1), "f": len, "none": None, "array": np.arange(3), "loop": loop,
    }  # fmt: skip

    made = plain(config)

    encode(made)
    assert made["lr"] == 0.5
    assert made["path"] == "a/b"
    assert made["point"] == {"x": 1}
    assert made["huge"] == str(10**30)
    assert made["3"] == {"set": [1]}
    assert made["args"] == {"a": 1}
    assert made["array"] == [0, 1, 2]


class Stubborn:
    def __repr__(self) -> str:
        raise RuntimeError("no form at all")


@dataclass
class Options:
    lr: float
    stop: Any


def test_no_configuration_fails_an_event() -> None:
    config = {
        "file": "a\udcff", "k\ud800": 1, "mute": Stubborn(), "many": np.array([1 + 2j, None], dtype=object),
        "options": Options(0.1, Stubborn()), "proxy": MappingProxyType({"a": {1}}),
    }  # fmt: skip

    made = plain(config)

    assert decode(encode(made)) == made
    assert made["file"] == "a\\udcff"
    assert made["options"] == {"lr": 0.1, "stop": "<Stubborn>"}
    assert made["proxy"] == {"a": [1]}
    assert made["many"][1] is None


_KEYS = st.one_of(st.integers(0, 2), st.sampled_from(["0", "1", "1~2", "1~3"]), st.floats(0, 1), st.none())


@given(st.dictionaries(_KEYS, st.integers(0, 9)))
def test_keys_that_have_one_text_lose_no_value(config: dict[Any, int]) -> None:
    @dataclass
    class Held:
        config: dict[Any, int]

    found = plain(config)

    assert list(found.values()) == list(config.values())
    assert all(name.split("~")[0] == str(key).split("~")[0] for key, name in zip(config, found, strict=True))
    assert plain(Held(config)) == {"config": found}


def test_keys_that_have_one_text_are_numbered() -> None:
    assert plain({1: "a", "1": "b", MappingProxyType: "c"}) == {
        "1": "a", "1~2": "b", "<class 'mappingproxy'>": "c"
    }  # fmt: skip


def test_what_numpy_masks_is_no_number() -> None:
    masked = np.ma.array([3.0, 4.0], mask=[True, False])

    assert plain({"a": np.ma.masked, "b": masked}) == {"a": None, "b": [None, 4.0]}
    assert decode(encode([np.ma.masked, np.ma.array(3.0, mask=True), np.ma.array(5)])) == [None, None, 5]
    assert decode(encode(np.ma.array([3.0, 4.0]))).tolist() == [3.0, 4.0]
    for make in (vector, encode):
        with pytest.raises(EncodeError, match="masked elements"):
            make(masked)


def test_a_field_without_a_form_costs_a_dataclass_nothing_else() -> None:
    made = plain(Options(0.1, len))

    assert made == {"lr": 0.1, "stop": repr(len)}


class Rate(float):
    """A number as configuration libraries make them."""


class Level(enum.IntEnum):
    HIGH = 3


def test_numbers_of_subclasses_are_numbers() -> None:
    made = plain({"rate": Rate(1.5), "level": Level.HIGH, "nan": Rate("nan")})

    assert decode(encode(made))["rate"] == 1.5
    assert (type(made["rate"]), type(made["level"])) == (float, int)
    assert math.isnan(made["nan"])


def test_what_holds_itself_ends_where_it_begins_again() -> None:
    root: dict[str, Any] = {}
    for number in range(10):
        root[f"stage {number}"] = {"parent": root, "lr": [number]}

    made = plain(root)

    assert len(encode(made)) < 20_000
    assert made["stage 3"]["lr"] == [3]
    assert isinstance(made["stage 3"]["parent"], str)


class Unspeakable(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise KeyError


@given(st.text(st.characters(), max_size=40))
def test_a_text_is_made_sound_once(text: str) -> None:
    told = sound(text)

    assert sound(told) == told == told.encode().decode()
    assert line_of(ValueError(text), 7).splitlines() in (
        [told_line[:7]] for told_line in [*told.splitlines(), "no details"]
    )


def test_the_line_of_an_error_is_its_first_that_says_something() -> None:
    assert line_of(ValueError("\n \nfirst\nsecond")) == "first"
    assert line_of(ValueError()) == "no details"
    assert (line_of(Unspeakable()), sound(Unspeakable())) == ("<Unspeakable>", "<Unspeakable>")
    assert plain({Unspeakable(): 1}) == {"<Unspeakable>": 1}
