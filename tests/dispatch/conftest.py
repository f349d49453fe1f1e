"""What the tests of dispatch share: a folder with files, capabilities over it, an embedder without a model, a sandbox."""

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from morphogen.consumers.dispatch.embed import unit
from morphogen.kernels.sandbox import Capabilities, LayerMissing, Limits, Sandbox, Workspace

from .world import Log


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "workspace"
    found.mkdir()
    return found


@pytest.fixture
def caps(folder: Path) -> Capabilities:
    return Capabilities(files=Workspace(folder, write=True))


@pytest.fixture
def log() -> Log:
    return Log()


class Words:
    """Vectors of words by hash: the same words, in any order, are one vector."""

    model = "words:1"

    def embed(self, text: str) -> Any:
        total = np.zeros(64, np.float32)
        for word in text.split():
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
            total += np.random.default_rng(seed).standard_normal(64).astype(np.float32)
        return unit(total)


@pytest.fixture
def words() -> Words:
    return Words()


@cache
def lacking() -> str | None:
    try:
        with Sandbox(Limits(wall_seconds=2.0), own_interpreter=True) as sandbox:
            sandbox.run("def run():\n    return 1\n")
    except LayerMissing as missing:
        return str(missing)
    return None


@pytest.fixture(scope="package")
def sandbox() -> Iterator[Sandbox]:
    """A pool for the whole room; tests skip where its layers do not hold."""
    if lacking():
        pytest.skip(f"this machine has not what the sandbox requires: {lacking()}")
    with Sandbox(Limits(wall_seconds=3.0, cpu_seconds=2), pool=2) as shared:
        yield shared
