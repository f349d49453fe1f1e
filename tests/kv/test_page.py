"""The page on KV states shows code that runs, and bytes that are so."""

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash

from morphogen.kernels.kv import export_kv

from . import models

PAGE = (Path(__file__).parents[2] / "docs" / "kv-format.md").read_text()


def test_the_code_on_the_page_runs(
    gguf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").symlink_to(gguf_folder / "tiny.gguf")
    names: dict[str, Any] = {}
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)):
        if number == 2:
            (tmp_path / "from-elsewhere.kv").write_bytes((tmp_path / "session.kv").read_bytes()[:-1])
        exec(code, names)
    names["first"].close()
    names["second"].close()

    said = capsys.readouterr().out.splitlines()
    assert said[0] == "True"
    assert "cut off" in said[-1]


def test_a_reader_written_from_the_page_alone_reads_a_state(llama: Callable[..., Any], tmp_path: Path) -> None:
    import msgspec
    import numpy as np

    read = llama()
    read.eval(models.prompt(50))
    export_kv(read, into=tmp_path / "a.kv", details={"by": "test"})
    data = (tmp_path / "a.kv").read_bytes()

    magic, version, encoding, size, offset, length, whole, own = struct.unpack("<8sHHIQQ16s16s", data[:64])
    header = msgspec.msgpack.decode(data[64 : 64 + size])
    payload = data[offset : offset + length]
    leaves = [payload[at : at + 2**20] for at in range(0, length, 2**20)]

    assert (magic, version, encoding) == (b"MGKVSTA\0", 1, 1)
    assert (offset % 4096, offset + length) == (0, len(data))
    assert own == xxhash.xxh3_128_digest(data[:48] + data[64 : 64 + size])
    assert whole == xxhash.xxh3_128_digest(b"".join(xxhash.xxh3_128_digest(leaf) for leaf in leaves))
    assert np.frombuffer(header["tokens"], "<i4").tolist() == models.prompt(50)
    assert header["details"] == {"by": "test"}
    for field in header["fingerprint"]:
        assert f"`{field}`" in PAGE
    for field in header:
        assert f"`{field}`" in PAGE
