"""A tiny model made once, a bus, and workers that are gone when the test is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from morphogen.bus import Bus, Settings
from morphogen.bus.broker import Endpoint

from ..kv import models
from .serving import Fleet, fleet


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama with a chat template."""
    models.needed()
    return models.write_llama(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same shape and vocabulary with other weights."""
    models.needed()
    return models.write_llama(tmp_path_factory.mktemp("gguf") / "other.gguf", seed=8)


@pytest.fixture
def llama(model: Path) -> Iterator[Callable[..., Any]]:
    """Open a Llama: llama(n_ctx=...)."""
    import llama_cpp

    opened: list[Any] = []

    def make(path: Path | None = None, **options: Any) -> Any:
        chosen: dict[str, Any] = {
            "n_ctx": 1024, "n_batch": 64, "n_threads": 1, "n_threads_batch": 1, "verbose": False, **options,
        }  # fmt: skip
        opened.append(llama_cpp.Llama(str(path or model), **chosen))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def bus(settings: Settings, broker: Endpoint) -> Iterator[Bus]:
    """A bus of the test's own broker."""
    with Bus.open(settings) as opened:
        yield opened


@pytest.fixture(scope="module")
def pair(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Workers `a` and `b` on one machine, which restore whatever the costs say; every test has sessions of its own."""
    with fleet(model, tmp_path_factory.mktemp("pair")) as made:
        for name in ("a", "b"):  # with room for all sessions of a module, so that none is put aside
            made.start(name, "--decide", "restore", "--parallel", "12", "--ctx", "16384")
        yield made


@pytest.fixture
def shm(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Room for workers that the test starts, and kills."""
    with fleet(model, tmp_path_factory.mktemp("fleet")) as made:
        yield made
