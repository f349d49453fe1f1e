"""A file of weights is read once, and again when it may have changed."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from morphogen.kernels.kv import KvError, fingerprint_of, weights
from morphogen.kernels.kv.weights import Weights, parts, weights_of


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read through, in order."""
    monkeypatch.setattr(weights, "_known", {})
    seen: list[str] = []
    digest = hashlib.file_digest

    def counting(file: Any, name: str) -> Any:
        seen.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counting)
    return seen


def test_a_file_is_read_once_by_all_processes_that_share_a_folder(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache = tmp_path / "model.gguf", tmp_path / "cache"
    file.write_bytes(b"weights")
    expected = hashlib.sha256(b"weights").hexdigest()

    assert weights_of(file, cache).sha256 == expected
    assert weights_of(file, cache).sha256 == expected
    monkeypatch.setattr(weights, "_known", {})  # another process
    assert weights_of(file, cache).sha256 == expected
    os.link(file, tmp_path / "link.gguf")
    assert read == ["model.gguf"]


@pytest.mark.parametrize("change", ["content", "time", "replaced"])
def test_a_file_that_may_have_changed_is_read_again(tmp_path: Path, read: list[str], change: str) -> None:
    file, cache = tmp_path / "model.gguf", tmp_path / "cache"
    file.write_bytes(b"weights")
    weights_of(file, cache)
    told = file.stat()

    if change == "content":
        file.write_bytes(b"WEIGHTS")
        os.utime(file, ns=(told.st_atime_ns, told.st_mtime_ns))  # the same size and time: the inode's own time tells
    elif change == "time":
        os.utime(file, ns=(0, 0))
    else:
        (tmp_path / "new").write_bytes(b"Weights")
        os.replace(tmp_path / "new", file)

    assert weights_of(file, cache).sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert len(read) == 2


@pytest.mark.parametrize("left", [b"", b"{", b'{"sha256": "short"}', b'{"sha256": 3}'])
def test_a_spoilt_cache_costs_one_reading(
    tmp_path: Path, read: list[str], left: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cache = tmp_path / "model.gguf", tmp_path / "cache"
    file.write_bytes(b"weights")
    weights_of(file, cache)
    for entry in cache.iterdir():
        entry.write_bytes(left)
    monkeypatch.setattr(weights, "_known", {})

    assert weights_of(file, cache).sha256 == hashlib.sha256(b"weights").hexdigest()
    assert len(read) == 2


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, read: list[str]) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"weights")
    (tmp_path / "cache").write_text("a file")

    assert weights_of(file, tmp_path / "cache").sha256 == hashlib.sha256(b"weights").hexdigest()


def test_a_model_in_parts_is_all_its_parts(tmp_path: Path, read: list[str]) -> None:
    names = [f"big-{number:05d}-of-00002.gguf" for number in (1, 2)]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())

    assert [path.name for path in parts(tmp_path / names[0])] == names
    first = weights_of(tmp_path / names[0])
    (tmp_path / names[1]).write_bytes(b"another second part")

    assert weights_of(tmp_path / names[0]).sha256 != first.sha256
    assert first == Weights(
        hashlib.sha256("".join(hashlib.sha256(n.encode()).hexdigest() for n in names).encode()).hexdigest()
    )


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(KvError, match=r"cannot be read .*No such file"):
        weights_of(tmp_path / "none.gguf")


def test_a_fingerprint_reads_the_model_once_and_the_vocabulary_once(
    llama: Any, tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = llama()
    first = fingerprint_of(llm, cache=tmp_path)
    monkeypatch.setattr(weights, "_known", {})
    monkeypatch.setattr("morphogen.kernels.kv.fingerprint.vocab_hash", lambda *_: pytest.fail("read again"))

    assert fingerprint_of(llm, cache=tmp_path) == first
    assert read == ["tiny.gguf"]
