"""Artifacts: what is saved is loaded bit for bit, and anything else is refused in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save as write_tensors

from morphogen.kernels.blueprints import (
    ArtifactRefused,
    Blueprint,
    KeyRefused,
    Linear,
    Mlp,
    Norm,
    UnfitBlueprint,
    address,
    build,
    load,
    new_key,
    pack,
    public_key,
    save,
    unpack,
    verify,
)

from .sites import batch, blueprints

PLAIN = Blueprint(name="plain", inputs=(8,), nodes=(Mlp(out=4, hidden=6),), output=1)
NORMED = Blueprint(name="normed", inputs=(8,), nodes=(Norm(kind="batch"), Linear(of=(1,), out=4)), output=2)
KEY = bytes(range(32))


def refused(data: bytes, **options: object) -> str:
    with pytest.raises(ArtifactRefused) as found:
        unpack(data, **options)  # type: ignore[arg-type]
    assert "\n" not in str(found.value)
    return str(found.value)


def rewritten(data: bytes, **metadata: str | None) -> bytes:
    """Return the file with other metadata, its tensors as they were."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = {k: v for k, v in {**header["__metadata__"], **metadata}.items() if v is not None}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def manifest(data: bytes) -> dict[str, object]:
    length = int.from_bytes(data[:8], "little")
    found: dict[str, object] = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["morphogen"])
    return found


@settings(max_examples=40)
@given(blueprints(), st.integers(0, 2**40), st.booleans())
def test_a_module_comes_back_bit_for_bit(blueprint: Blueprint, seed: int, with_key: bool) -> None:
    module = build(blueprint, seed=seed, zero_last=False).eval()
    data = pack(blueprint, module, key=KEY if with_key else None, note={"from": "a test"})

    found = unpack(data, trusted=[public_key(KEY)] if with_key else None)

    x = batch(blueprint.inputs)
    assert torch.equal(found.build().eval()(x), module(x))
    assert (found.blueprint, found.manifest.blueprint) == (blueprint, address(blueprint))
    assert found.signer == (public_key(KEY) if with_key else None)
    assert (
        found.address == unpack(pack(blueprint, module, note={"from": "a test"})).address
    )  # signing does not change it


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_and_the_buffers_of_a_norm_are_kept(dtype: torch.dtype) -> None:
    module = build(NORMED, seed=1, zero_last=False, dtype=dtype)
    module(torch.randn(5, 8, dtype=dtype))

    again = unpack(pack(NORMED, module)).build()

    for name, value in module.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert value.dtype == again.state_dict()[name].dtype


def test_a_file_is_read_by_another_process_by_its_sha256(tmp_path: Path) -> None:
    module = build(PLAIN, seed=3, zero_last=False)
    path = tmp_path / "plain.safetensors"
    name = save(path, PLAIN, module, key=KEY)
    script = (
        "import torch\nfrom morphogen.kernels.blueprints import load\n"
        f"found = load({str(path)!r}, trusted=[{public_key(KEY)!r}])\n"
        "print(found.address, found.build()(torch.ones(1, 8)).tolist())"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, check=False)

    assert (done.stdout.strip(), done.stderr) == (f"{name} {module(torch.ones(1, 8)).tolist()}", "")
    assert verify(path).tensors == load(path).manifest.tensors
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_what_was_built_from_an_artifact_does_not_write_into_it() -> None:
    artifact = unpack(pack(PLAIN, build(PLAIN, seed=1, zero_last=False)))
    first = artifact.build()
    with torch.no_grad():
        for weight in first.parameters():
            weight.zero_()

    assert all(weight.requires_grad for weight in first.parameters())
    assert bool((artifact.build()(torch.ones(1, 8)) != 0).any())


def test_no_flipped_bit_of_a_signed_file_is_taken() -> None:
    whole = pack(PLAIN, build(PLAIN, seed=1, zero_last=False), key=KEY)
    trusted = [public_key(KEY)]

    for place in range(len(whole)):
        for bit in {5, place % 8}:  # 5 makes capitals of small letters
            hurt = bytearray(whole)
            hurt[place] ^= 1 << bit
            with pytest.raises(ArtifactRefused):
                unpack(bytes(hurt), trusted=trusted)


@settings(max_examples=100)
@given(st.data())
def test_no_file_that_was_cut_short_or_made_longer_is_taken(data: st.DataObject) -> None:
    whole = pack(PLAIN, build(PLAIN, seed=1))

    refused(whole[: data.draw(st.integers(0, len(whole) - 1))])
    refused(whole + data.draw(st.binary(min_size=1, max_size=100)))


@settings(max_examples=100)
@given(st.binary(max_size=300))
def test_random_bytes_are_no_artifact(data: bytes) -> None:
    refused(data)
    refused(len(data).to_bytes(8, "little") + data)


def test_a_forged_size_of_header_or_body_takes_no_memory() -> None:
    refused((2**63).to_bytes(8, "little") + b"{}" * 100)
    refused((1 << 24).to_bytes(8, "little") + b" " * (1 << 24))
    whole = pack(PLAIN, build(PLAIN, seed=1))
    assert "longer than its blueprint's weights" in refused(whole + bytes(1 << 20))


def test_foreign_safetensors_and_deeply_nested_headers_are_refused() -> None:
    assert "without a manifest" in refused(write_tensors({"a": torch.ones(2)}, metadata={"x": "y"}))
    assert "not one of ours" in refused(write_tensors({"a": torch.ones(2)}))
    deep = b'{"__metadata__":' + b"[" * 100_000
    refused(len(deep).to_bytes(8, "little") + deep)


def test_a_manifest_that_lies_is_refused() -> None:
    whole = pack(PLAIN, build(PLAIN, seed=1, zero_last=False))
    told = manifest(whole)
    other = manifest(pack(NORMED, build(NORMED, seed=1)))

    def saying(**changes: object) -> bytes:
        text = msgspec.json.encode({**told, **changes}, order="sorted").decode()
        return rewritten(whole, morphogen=text)

    assert unpack(saying(note={"by": "me"})).manifest.note == {"by": "me"}
    for changes, says in (
        ({"spec": other["spec"]}, "does not agree"),
        ({"spec": other["spec"], "blueprint": other["blueprint"], "name": "normed"}, "tensors"),
        ({"spec": "!!"}, "bad manifest"),
        ({"spec": ""}, "bad manifest"),
        ({"blueprint": "0" * 64}, "does not agree"),
        ({"in_shape": [9]}, "does not agree"),
        ({"out_shape": [9]}, "does not agree"),
        ({"tensors": "0" * 64}, "sha256"),
        ({"dtypes": {}}, "other dtypes"),
        ({"format": 2}, "update Morphogen"),
        ({"code": "print(1)"}, "bad manifest"),
        ({"note": {"a": 1}}, "bad manifest"),
    ):
        assert says in refused(saying(**changes)), changes


def test_weights_that_are_not_the_blueprints_or_not_finite_are_refused() -> None:
    state = dict(build(PLAIN, seed=1).state_dict())
    wrong = {name: torch.ones(*value.shape, 2) for name, value in state.items()}
    odd = {name: value.to(torch.int32) for name, value in state.items()}
    sick = {name: torch.full_like(value, torch.nan) for name, value in state.items()}
    for weights, says in (
        (wrong, "of shape"),
        (odd, "int32"),
        (sick, "not finite"),
        ({}, "tensors"),
        ({**state, "x": state["n1.0.bias"]}, "'x'"),
    ):
        with pytest.raises(ArtifactRefused, match=says):
            pack(PLAIN, weights)


def test_only_a_good_signature_of_a_trusted_key_passes_where_one_is_asked_for() -> None:
    module = build(PLAIN, seed=1, zero_last=False)
    signed, unsigned = pack(PLAIN, module, key=KEY), pack(PLAIN, module)
    stranger = new_key()

    assert unpack(signed).signer == public_key(KEY)
    assert unpack(unsigned).signer is None
    assert "trusted signature is asked for" in refused(unsigned, trusted=[public_key(KEY)])
    assert "not signed by a trusted key" in refused(signed, trusted=[public_key(stranger)])
    assert "not signed by a trusted key" in refused(signed, trusted=[])
    assert "not good" in refused(rewritten(signed, signature="0" * 128))
    assert "not good" in refused(rewritten(signed, signature=None))
    assert "not good" in refused(rewritten(signed, signer=public_key(stranger)))
    assert "not good" in refused(rewritten(signed, signer="x"))
    lying = msgspec.json.encode({**manifest(signed), "note": {"by": "another"}}, order="sorted").decode()
    assert "not good" in refused(rewritten(signed, morphogen=lying))


def test_keys_that_are_none_are_refused() -> None:
    module = build(PLAIN, seed=1)
    for key in (b"", b"short", bytes(33)):
        with pytest.raises(KeyRefused):
            pack(PLAIN, module, key=key)
    for trusted in (["zz"], [public_key(KEY).upper()], public_key(KEY), [b"1"]):
        with pytest.raises(KeyRefused):
            unpack(pack(PLAIN, module), trusted=trusted)  # type: ignore[arg-type]


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "pipe"):
        with pytest.raises(ArtifactRefused):
            load(path)


def test_a_site_or_device_that_it_was_not_made_for_is_refused() -> None:
    artifact = unpack(pack(PLAIN, build(PLAIN, seed=1), device="cuda"))

    artifact.check((8,), [4], "cuda:0")
    with pytest.raises(UnfitBlueprint, match="the site has"):
        artifact.check(site_in=(9,))
    with pytest.raises(UnfitBlueprint, match="the site has"):
        artifact.check(site_out=(9,))
    with pytest.raises(UnfitBlueprint, match="needs a cuda device"):
        artifact.build(device="cpu")
