"""A blueprint as data: its bytes, its address, its shapes, and everything that is refused."""

import subprocess
import sys
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphogen.kernels.blueprints import (
    Activation,
    Attention,
    Average,
    Blueprint,
    BlueprintError,
    Budget,
    Conv,
    DepthwiseConv,
    Gate,
    InvalidBlueprint,
    Linear,
    LowRankLinear,
    Mlp,
    Norm,
    OverBudget,
    Reshape,
    Residual,
    Resize,
    UnfitBlueprint,
    address,
    decode,
    encode,
    flops,
    params,
    shape_of,
    shapes,
    validate,
)
from morphogen.kernels.blueprints.blueprint import MAX_BYTES

from .sites import blueprints


def one(
    *nodes: object, inputs: tuple[int | None, ...] = (8,), output: int | None = None, name: str = "tried"
) -> Blueprint:
    return Blueprint(name=name, inputs=inputs, nodes=nodes, output=len(nodes) if output is None else output)  # type: ignore[arg-type]


@given(blueprints())
def test_what_is_encoded_decodes_to_the_same_and_keeps_its_address(blueprint: Blueprint) -> None:
    again = decode(encode(blueprint))

    assert again == blueprint
    assert encode(again) == encode(blueprint)
    assert address(again) == address(blueprint)


def test_the_address_leaves_out_the_name_and_nothing_else() -> None:
    first = one(Linear(out=4))

    assert address(first) == address(msgspec.structs.replace(first, name="other"))
    assert address(first) != address(one(Linear(out=5)))
    assert address(first) != address(one(Linear(out=4, bias=False)))
    assert address(first) != address(one(Linear(out=4), inputs=(9,)))


def test_an_address_stays_what_it_was_when_first_shipped() -> None:
    blueprint = one(Norm(kind="layer"), Mlp(of=(1,), out=4, hidden=16, function="gelu"))

    assert address(blueprint) == "9e1312390c340434fd31bdfc1aef0cd3359230db2725f6125c82df50449aa67c"


@settings(max_examples=120)
@given(st.binary(max_size=400))
def test_random_bytes_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(InvalidBlueprint) as refused:
        decode(data)

    assert "\n" not in str(refused.value)


@settings(max_examples=120)
@given(blueprints(), st.data())
def test_a_flipped_bit_gives_a_refusal_or_a_valid_blueprint(blueprint: Blueprint, data: st.DataObject) -> None:
    hurt = bytearray(encode(blueprint))
    hurt[data.draw(st.integers(0, len(hurt) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    with suppress(BlueprintError):
        validate(decode(bytes(hurt)))


def test_a_field_that_is_not_known_is_refused() -> None:
    told = msgspec.to_builtins(one(Linear(out=4)))
    for hidden in ({**told, "code": "print(1)"}, {**told, "nodes": [{**told["nodes"][0], "code": "print(1)"}]}):
        with pytest.raises(InvalidBlueprint, match="unknown field"):
            decode(msgspec.msgpack.encode(hidden))


def test_more_bytes_than_the_limit_are_not_even_decoded() -> None:
    with pytest.raises(InvalidBlueprint, match="limit"):
        decode(b"\x00" * (MAX_BYTES + 1))


@pytest.mark.parametrize(
    ("blueprint", "says"),
    [
        (one(), "nodes"),
        (one(*[Linear(out=8, of=(k,)) for k in range(65)]), "65 nodes"),
        (one(Linear(out=0)), "out 0"),
        (one(Linear(out=-3)), "out -3"),
        (one(Linear(out=2**40)), "from 1 to"),
        (one(Linear(out=4), inputs=()), "one to three axes"),
        (one(Linear(out=4), inputs=(1, 2, 3, 4)), "one to three axes"),
        (one(Linear(out=4), inputs=(None,)), "open"),
        (one(Linear(out=4), inputs=(4, None)), "open"),
        (one(Linear(out=4), inputs=(2**19, 2**19)), "more than"),
        (one(Linear(out=4), inputs=(0,)), "from 1 to"),
        (one(Linear(out=4, of=(1,))), "may read 0 to 0"),
        (one(Linear(out=4, of=(-1,))), "may read"),
        (one(Linear(out=4, of=(0, 0))), "reads 2 values"),
        (one(Linear(out=4, of=())), "reads 0 values"),
        (one(Linear(out=4), output=2), "output 2"),
        (one(Linear(out=4), output=0), "output 0"),
        (one(Linear(out=4), Linear(out=5)), "nothing reads node 1"),
        (one(Linear(out=4), name="Bad name"), "blueprint name"),
        (one(Linear(out=4), name="<script>"), "blueprint name"),
        (one(Linear(out=4), name=""), "blueprint name"),
        (one(Linear(out=4), Residual(of=(0, 1))), "cannot add"),
        (one(LowRankLinear(out=4, rank=0)), "rank 0"),
        (one(Conv(out=4, kernel=3)), "takes sequence or image"),
        (one(Linear(out=4), inputs=(3, 8, 8)), "takes features or sequence"),
        (one(Attention(out=4, heads=2, width=4)), "takes sequence"),
        (one(Attention(out=4, heads=2**19, width=2**19), inputs=(4, 8)), "heads x width"),
        (one(Conv(out=4, kernel=9), inputs=(3, 4, 4)), "does not fit"),
        (one(Conv(out=4, kernel=3, padding=2), inputs=(3, 4, 4)), "padding 2"),
        (one(Conv(out=4, kernel=3, groups=2), inputs=(3, 4, 4)), "do not divide"),
        (one(Conv(out=4, kernel=3, stride=2), inputs=(9, 4)), "stride is 1"),
        (one(Conv(out=4, kernel=4, causal=False), inputs=(9, 4)), "must be odd"),
        (one(DepthwiseConv(kernel=0), inputs=(3, 4, 4)), "kernel 0"),
        (one(Norm(kind="batch"), inputs=(9, 4)), "mix the positions"),
        (one(Norm(kind="rms"), inputs=(3, 4, 4)), "rms norm"),
        (one(Norm(kind="group", groups=3)), "do not divide"),
        (one(Norm(kind="layer", groups=2)), "groups are for group norm"),
        (one(Reshape(shape=(2, 2, 3))), "not as many values"),
        (one(Reshape(shape=(4, 2))), "an image to features, or back"),
        (one(Resize(height=4, width=4)), "takes image"),
        (one(Average()), "takes sequence or image"),
        (one(Gate(of=(0, 1)), Linear(out=3)), "may read"),
        (one(Activation(function="gelu")), "the input itself"),
        (one(Linear(out=8), Activation(function="relu", of=(1,))), "cannot begin as nothing"),
        (one(Linear(out=8), Activation(function="sigmoid", of=(1,))), "cannot begin as nothing"),
        (one(Linear(out=8), Residual(of=(0, 1))), "the input itself"),
        (one(Linear(out=2**20), inputs=(2**12,)), "1073741824"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line_that_says_why(blueprint: Blueprint, says: str) -> None:
    with pytest.raises(BlueprintError, match=says) as refused:
        validate(blueprint)

    assert "\n" not in str(refused.value)


def test_a_blueprint_fits_its_site_only() -> None:
    blueprint = one(Linear(out=4))

    validate(blueprint, (8,), [4])
    with pytest.raises(UnfitBlueprint, match=r"takes \(8\), the site \(9\)"):
        validate(blueprint, (9,), (4,))
    with pytest.raises(UnfitBlueprint, match=r"gives \(4\)"):
        validate(blueprint, (8,), (4, 1))


def test_an_open_length_fits_any() -> None:
    blueprint = one(Linear(out=4), inputs=(None, 8))

    validate(blueprint, (31, 8), (31, 4))
    assert shape_of(blueprint) == (None, 4)
    assert flops(blueprint, length=10) == 2 * 10 * 8 * 4
    with pytest.raises(UnfitBlueprint, match="say length="):
        flops(blueprint)


def test_a_budget_holds_to_the_last_parameter_and_operation() -> None:
    blueprint = one(Mlp(out=4, hidden=16))

    validate(blueprint, budget=Budget(params=params(blueprint), flops=flops(blueprint), elements=8))
    for budget in (
        Budget(params=params(blueprint) - 1),
        Budget(flops=flops(blueprint) - 1),
        Budget(elements=7),
        Budget(params=0),
    ):
        with pytest.raises(OverBudget, match="the limit is"):
            validate(blueprint, budget=budget)


def test_each_nodes_shape_is_told() -> None:
    blueprint = one(
        Conv(out=6, kernel=3, stride=2, padding=1),
        Norm(kind="group", groups=3, of=(1,)),
        Gate(of=(1, 2)),
        Average(of=(3,)),
        Linear(out=48, of=(4,)),
        Reshape(shape=(3, 4, 4), of=(5,)),
        inputs=(3, 8, 8),
    )

    assert shapes(blueprint) == ((3, 8, 8), (6, 4, 4), (6, 4, 4), (6, 4, 4), (6,), (48,), (3, 4, 4))


def test_all_but_modules_and_files_works_without_torch_and_what_needs_it_names_the_extra() -> None:
    script = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from morphogen.kernels.blueprints import MissingExtra, Request, address, decode, encode, propose\n"
        "found = propose(Request(site='s', kind='features', in_shape=(8,), out_shape=(4,)))\n"
        "assert decode(encode(found[0].blueprint)) == found[0].blueprint\n"
        "for name in ('build', 'save', 'compile_package', 'measured'):\n"
        "    try:\n"
        "        exec(f'from morphogen.kernels.blueprints import {name}')\n"
        "    except MissingExtra as error:\n"
        "        assert 'morphogen[adapt]' in str(error)\n"
        "    else:\n"
        "        raise SystemExit(name)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)

    assert (done.returncode, done.stderr) == (0, "")
