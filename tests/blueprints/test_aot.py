"""Compiled packages: one is really compiled and run; whatever no trusted key has signed is refused unopened."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from morphogen.kernels.blueprints import (
    Blueprint,
    KeyRefused,
    Mlp,
    PackageRefused,
    build,
    compile_package,
    load_package,
    new_key,
    pack,
    public_key,
    unpack,
)

KEY = bytes(range(32))
TRUSTED = [public_key(KEY)]
BLUEPRINT = Blueprint(name="small", inputs=(8,), nodes=(Mlp(out=4, hidden=6),), output=1)
QUICK = {
    "aot_inductor.compile_wrapper_opt_level": "O0",
    "aot_inductor.precompile_headers": False,  # they pay from the second package on
    "cpp.vec_isa_ok": True,  # else three more programs are compiled, to see what the processor can do
}


def test_a_signed_package_compiles_runs_and_nothing_else_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler here")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    artifact = unpack(pack(BLUEPRINT, build(BLUEPRINT, seed=1, zero_last=False)))
    path = tmp_path / "small.pt2"

    manifest = compile_package(artifact, path, key=KEY, options=QUICK)
    package = load_package(path, trusted=TRUSTED, artifact=artifact.address)

    for count in (1, 2, 9):
        x = torch.randn(count, 8)
        torch.testing.assert_close(package(x), artifact.build().eval()(x).detach())
    assert package.manifest == manifest
    with pytest.raises(PackageRefused, match="was compiled from"):
        load_package(path, trusted=TRUSTED, artifact="0" * 64)
    for trusted in ([], [public_key(new_key())]):
        with pytest.raises(PackageRefused, match="not signed by a trusted key"):
            load_package(path, trusted=trusted)

    note, data = (tmp_path / "small.pt2.sig").read_bytes(), path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(PackageRefused, match="changed after it was signed"):
        load_package(path, trusted=TRUSTED)
    path.write_bytes(data + b"x")
    with pytest.raises(PackageRefused, match="longer than"):
        load_package(path, trusted=TRUSTED)
    path.write_bytes(data)

    told = json.loads(note)
    for changed in (
        {**told, "manifest": told["manifest"].replace('"cpu"', '"cuda"')},
        {**told, "signature": "0" * 128},
        {**told, "signature": ""},
    ):
        (tmp_path / "small.pt2.sig").write_text(json.dumps(changed))
        with pytest.raises(PackageRefused, match="signature that is not good"):
            load_package(path, trusted=TRUSTED)


@pytest.mark.parametrize("note", [b"", b"{}", b"\xff", b"[" * 1000, b'{"manifest": 1}', b" " * 70_000])
def test_a_package_without_a_signature_file_or_with_a_broken_one_is_refused(tmp_path: Path, note: bytes) -> None:
    path = tmp_path / "x.pt2"
    path.write_bytes(b"not even a package")
    with pytest.raises(PackageRefused, match="is missing"):
        load_package(path, trusted=TRUSTED)

    (tmp_path / "x.pt2.sig").write_bytes(note)
    with pytest.raises(PackageRefused) as refused:
        load_package(path, trusted=TRUSTED)
    assert "\n" not in str(refused.value)


def test_keys_and_lengths_that_would_not_do_are_refused_before_anything_is_compiled(tmp_path: Path) -> None:
    open_length = Blueprint(name="open", inputs=(None, 8), nodes=(Mlp(out=4, hidden=6),), output=1)
    artifact = unpack(pack(open_length, build(open_length, seed=1)))

    with pytest.raises(KeyRefused):
        compile_package(artifact, tmp_path / "x.pt2", key=b"short")
    with pytest.raises(PackageRefused, match="leaves its length open"):
        compile_package(artifact, tmp_path / "x.pt2", key=KEY)
    with pytest.raises(KeyRefused):
        load_package(tmp_path / "x.pt2", trusted=["nonsense"])
