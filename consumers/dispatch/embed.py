"""Goals as vectors, on this machine: a small model of word vectors whose weights come inside a package.

`pip install 'morphogen[match]'` brings wordllama (256 numbers a goal, 32,000 tokens). Its files are read directly: importing the
package would set up the program's logging and import an HTTP client, and its own loader looks for the tokenizer on the network.
Nothing here opens a connection.
"""

import hashlib
import importlib.util
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .errors import MissingExtra

if TYPE_CHECKING:
    import numpy.typing as npt

_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
_EXTRA = "matching goals by their likeness needs its extra: pip install 'morphogen[match]'"


class Embedder(Protocol):
    """What makes vectors of goals: a local model, such as the one below or a llama backend's embeddings."""

    @property
    def model(self) -> str:
        """The model's name with a hash of its content: vectors of two models are never compared."""

    def embed(self, text: str) -> "npt.NDArray[np.float32]":
        """Return the vector of a text: float32, one dimension, of length 1; zeros where the text says nothing."""


class WordLlama:
    """The mean of a text's word vectors, as wordllama computes it. Loads its files when it is first asked.

    Safe to share between threads. Raises MissingExtra where the package or its files are not installed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._loaded: tuple[Any, npt.NDArray[np.float16], str] | None = None

    @property
    def model(self) -> str:
        """`wordllama-l2_supercat_256:` and twelve hex digits of its files' hash."""
        return self._load()[2]

    def embed(self, text: str) -> "npt.NDArray[np.float32]":
        """Return the vector of a text, shape (256,)."""
        tokenizer, weights, _ = self._load()
        ids = np.asarray(tokenizer.encode(text, add_special_tokens=False).ids, np.int64)
        if ids.size == 0:
            return np.zeros(weights.shape[1], np.float32)
        mean = weights[np.clip(ids, 0, len(weights) - 1)].astype(np.float32).mean(axis=0)
        return unit(mean)

    def _load(self) -> "tuple[Any, npt.NDArray[np.float16], str]":
        with self._lock:
            if self._loaded is None:
                self._loaded = _read(self._folder or _installed())
            return self._loaded


def unit(vector: Any) -> "npt.NDArray[np.float32]":
    """Return a vector scaled to length 1, as float32; what is not finite, or has no length, becomes zeros."""
    array = np.asarray(vector, np.float32).reshape(-1)
    length = float(np.linalg.norm(array))
    if not np.isfinite(length) or length == 0.0:
        return np.zeros_like(array)
    return (array / np.float32(length)).astype(np.float32)


def _installed() -> Path:
    found = importlib.util.find_spec("wordllama")  # looks, and imports nothing
    if found is None or not found.submodule_search_locations:
        raise MissingExtra(_EXTRA)
    return Path(next(iter(found.submodule_search_locations)))


def _read(folder: Path) -> "tuple[Any, npt.NDArray[np.float16], str]":
    weights, vocabulary = folder / _WEIGHTS, folder / _TOKENIZER
    if not weights.is_file() or not vocabulary.is_file():
        raise MissingExtra(f"{folder} lacks {_WEIGHTS} or {_TOKENIZER}: install wordllama 0.4 again")
    try:
        from safetensors import safe_open
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingExtra(f"{_EXTRA} ({error})") from error
    with safe_open(weights, framework="np") as file:
        table: npt.NDArray[np.float16] = file.get_tensor("embedding.weight")
    digest = hashlib.sha256(weights.read_bytes())
    digest.update(vocabulary.read_bytes())
    tokenizer = Tokenizer.from_file(str(vocabulary))
    return tokenizer, table, f"wordllama-l2_supercat_256:{digest.hexdigest()[:12]}"
