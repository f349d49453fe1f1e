"""Goals as vectors by a GGUF model in this very process: for whoever has an embedding model and wants better likeness.

`pip install 'morphogen[llama]'`. A model that was trained to embed says what pooling it wants; another one's tokens are averaged.
"""

import hashlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .embed import unit
from .errors import DispatchError, MissingExtra

if TYPE_CHECKING:
    import numpy.typing as npt

_MEAN = 1  # LLAMA_POOLING_TYPE_MEAN


class LlamaEmbedder:
    """Embeds with a GGUF file through llama.cpp; the file is loaded when it is first asked. Safe to share between threads.

    `context` is how many tokens of a text count; what follows is left out. Raises DispatchError where there is no such file, MissingExtra
    without llama-cpp-python.
    """

    def __init__(self, path: str | Path, *, context: int = 512, threads: int = 1) -> None:
        self._path = Path(path).expanduser()
        if not self._path.is_file():
            raise DispatchError(f"there is no GGUF file at {self._path}: give the path of an embedding model")
        self._context, self._threads = context, threads
        self._lock = threading.Lock()
        self._llama: Any = None
        self._model = ""

    @property
    def model(self) -> str:
        """The file's name and twelve hex digits of its hash."""
        with self._lock:
            if not self._model:
                with self._path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                self._model = f"{self._path.stem}:{digest[:12]}"
            return self._model

    def embed(self, text: str) -> "npt.NDArray[np.float32]":
        """Return the vector of a text; zeros where the text says nothing."""
        with self._lock:
            llama = self._loaded()
            tokens = llama.tokenize(text.encode("utf-8", "replace"))[: self._context] if text.strip() else []
            if not tokens:
                return np.zeros(int(llama.n_embd()), np.float32)
            whole = llama.detokenize(tokens).decode("utf-8", "replace")
            return unit(llama.embed(whole, normalize=False, truncate=True))

    def close(self) -> None:
        """Give the model's memory back; a later call loads it again."""
        with self._lock:
            if self._llama is not None:
                self._llama.close()
            self._llama = None

    def _loaded(self) -> Any:
        if self._llama is None:
            try:
                import llama_cpp
            except ImportError as error:
                raise MissingExtra(f"embedding with {self._path.name} needs: pip install 'morphogen[llama]'") from error
            given = {"embedding": True, "n_ctx": self._context, "n_batch": self._context, "n_ubatch": self._context,
                     "n_threads": self._threads, "n_threads_batch": self._threads, "verbose": False}  # fmt: skip
            llama = llama_cpp.Llama(str(self._path), **given)
            if llama.pooling_type() == 0:  # it would give a vector for each token
                llama.close()
                llama = llama_cpp.Llama(str(self._path), pooling_type=_MEAN, **given)
            self._llama = llama
        return self._llama
