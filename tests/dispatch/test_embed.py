"""Vectors of goals, without a network."""

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from morphogen.consumers.dispatch import DispatchError, LlamaEmbedder, MissingExtra, WordLlama
from morphogen.consumers.dispatch.embed import unit
from morphogen.consumers.dispatch.nearest import Nearest

GOALS = ["sum the column {column} of {path}", "add up column {column} in {path}", "rename the checkpoints of {run}"]


@pytest.fixture(scope="module")
def model() -> WordLlama:
    pytest.importorskip("tokenizers")
    if __import__("importlib.util").util.find_spec("wordllama") is None:
        pytest.skip("wordllama is not installed: pip install 'morphogen[match]'")
    return WordLlama()


def test_goals_become_unit_vectors_without_opening_a_socket(model: WordLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(socket, "create_connection", refused)
    fresh = WordLlama()
    vectors = np.array([fresh.embed(goal) for goal in GOALS])
    assert vectors.shape == (3, 256)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.8 > likeness[0, 2]
    assert not fresh.embed("").any()
    assert fresh.model == model.model


def test_the_vectors_are_those_of_the_package_itself(model: WordLlama) -> None:
    program = (
        "import importlib.util, pathlib, sys, json\n"
        "home = pathlib.Path(next(iter(importlib.util.find_spec('wordllama').submodule_search_locations)))\n"
        "from safetensors import safe_open\nfrom tokenizers import Tokenizer\n"
        "from wordllama.inference import WordLlamaInference\n"
        "with safe_open(str(home / 'weights/l2_supercat_256.safetensors'), framework='np') as file:\n"
        "    table = file.get_tensor('embedding.weight')\n"
        "words = Tokenizer.from_file(str(home / 'tokenizers/l2_supercat_tokenizer_config.json'))\n"
        "print(json.dumps(WordLlamaInference(table, words).embed(json.loads(sys.argv[1]), norm=True).tolist()))\n"
    )
    import json

    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(GOALS)], capture_output=True, text=True, check=True
    )
    theirs = np.array(json.loads(done.stdout.splitlines()[-1]), np.float32)
    assert np.allclose(np.array([model.embed(goal) for goal in GOALS]), theirs, atol=1e-5)


def test_embedding_imports_neither_the_package_nor_an_http_client() -> None:
    program = (
        "import sys, logging\nfrom morphogen.consumers.dispatch import WordLlama\nWordLlama().embed('a goal')\n"
        "assert not {'wordllama', 'requests', 'torch'} & sys.modules.keys(), sorted(sys.modules)\n"
        "assert not logging.root.handlers\n"
    )
    pytest.importorskip("tokenizers")
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_folder_without_the_files_names_the_extra(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match="install wordllama"):
        WordLlama(tmp_path).embed("a goal")


def test_the_search_orders_by_likeness_and_then_by_name() -> None:
    nearest = Nearest()
    east, north = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    for name, vector in {"b": east, "a": east, "c": unit(east + north), "d": north, "e": -east}.items():
        nearest.add(name, "m", vector)
    nearest.add("other", "another model", east)
    nearest.add("a", "m", north)  # the first vector of a family counts
    nearest.add("long", "m", np.array([1, 0, 0], np.float32))
    for hostile in ([], [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 0.0]):
        nearest.add(f"hostile {hostile}", "m", hostile)
        assert nearest.search("m", hostile, limit=3, least=-1) == []
    found = nearest.search("m", east, limit=3, least=0.1)
    assert [(one.signature, round(one.similarity, 3)) for one in found] == [("a", 1.0), ("b", 1.0), ("c", 0.707)]
    assert [one.signature for one in nearest.search("m", [1, 0, 0], limit=9, least=0.0)] == ["long"]
    assert nearest.search("unknown", east, limit=3, least=-1) == []
    nearest.close()
    assert nearest.search("m", east, limit=3, least=-1) == []


def test_a_model_in_this_process_embeds_too(tmp_path: Path) -> None:
    from ..kv import models

    models.needed()
    with pytest.raises(DispatchError, match="no GGUF file"):
        LlamaEmbedder(tmp_path / "none.gguf")
    models.write_llama(tmp_path / "tiny.gguf")
    llama = LlamaEmbedder(tmp_path / "tiny.gguf", context=64)
    first, again, other = (llama.embed(goal) for goal in (GOALS[0], GOALS[0], GOALS[2]))
    assert first.dtype == np.float32
    assert np.linalg.norm(first) == pytest.approx(1.0, abs=1e-5)
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert llama.embed("word " * 500).shape == first.shape
    assert not llama.embed(" ").any()
    assert llama.model.startswith("tiny:")
    llama.close()
    assert np.allclose(llama.embed(GOALS[0]), first, atol=1e-6)
    llama.close()
