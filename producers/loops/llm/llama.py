"""A GGUF model in this very process, by llama.cpp. A declared type becomes a grammar, so the reply is always JSON.

The model is loaded at the first query. The same prompt, seed and options give the same reply on the same machine.
"""

import json
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec

from .backend import Query, Reply
from .budget import Price
from .errors import BackendError
from .messages import messages_of

_TEMPLATE = 64  # tokens that the chat template may add to a prompt


class LlamaOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of `llama`."""

    model: str  # path of a GGUF file
    context: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 4096  # tokens of prompt and reply together
    gpu_layers: int = 0  # -1 puts all on the GPU
    threads: Annotated[int, msgspec.Meta(ge=1, le=512)] | None = None  # llama.cpp's limit
    chat_format: str | None = None  # default: the template inside the file
    seed: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: str | list[str] | None = None


class LlamaBackend:
    """Asks a model that runs in this process."""

    name = "llama"

    def __init__(self, options: LlamaOptions) -> None:
        self._options = options
        self._path = Path(options.model).expanduser()
        if not self._path.is_file():
            raise BackendError(f"backend llama: no GGUF file at {self._path}", called=False)
        self._lock = threading.Lock()
        self._model: Any = None

    def price(self, query: Query) -> Price:
        """Return that a model in one's own process costs no money."""
        return Price(0, 0)

    def count_tokens(self, query: Query) -> int:
        """Return how many tokens the prompt has, and 64 for the template around it."""
        with self._lock:
            model = self._loaded()
            texts = [query.prompt, query.system or ""]
            return _TEMPLATE + sum(len(model.tokenize(text.encode("utf-8", "replace"), special=True)) for text in texts)

    def ask(self, query: Query) -> Reply:
        """Return the model's reply. Raises BackendError where the prompt does not fit or the schema is no grammar."""
        given = query.options
        if given.get("model") not in {None, self._options.model}:
            raise BackendError(
                f"backend llama holds {self._path.name}, the step asks for model {given['model']!r}: leave it out there",
                called=False,
            )
        with self._lock:
            model = self._loaded()
            grammar = self._grammar(query)
            began = time.monotonic_ns()
            try:
                model.reset()
                content = model.create_chat_completion(
                    messages=messages_of(query),
                    grammar=grammar,
                    temperature=_or(given.get("temperature"), self._options.temperature),
                    top_p=_or(given.get("top_p"), self._options.top_p),
                    seed=_or(given.get("seed"), self._options.seed),
                    max_tokens=_or(given.get("max_tokens"), self._options.max_tokens),
                    stop=_or(given.get("stop"), self._options.stop) or [],
                )
            except Exception as error:
                raise BackendError(f"backend llama ({self._path.name}): {_line(error)}") from error
            took = time.monotonic_ns() - began
        choice, usage = content["choices"][0], content["usage"]
        return Reply(
            choice["message"]["content"] or "",
            usage["prompt_tokens"],
            usage["completion_tokens"],
            0,
            self._path.name,
            took,
            finish=choice["finish_reason"],
        )

    def close(self) -> None:
        """Free the model."""
        with self._lock:
            if self._model is not None:
                self._model.close()
                self._model = None

    def _loaded(self) -> Any:
        if self._model is None:
            try:
                import llama_cpp
            except ImportError as error:
                message = "backend llama needs llama-cpp-python: pip install 'morphogen[llama]'"
                raise BackendError(message, called=False) from error
            chosen = self._options
            try:
                self._model = llama_cpp.Llama(
                    str(self._path),
                    n_ctx=chosen.context,
                    n_gpu_layers=chosen.gpu_layers,
                    n_threads=chosen.threads,
                    chat_format=chosen.chat_format,
                    seed=chosen.seed,
                    verbose=False,
                )
            except Exception as error:
                message = f"backend llama: {self._path} cannot be loaded: {_line(error)}"
                raise BackendError(message, called=False) from error
        return self._model

    def _grammar(self, query: Query) -> Any:
        if query.schema is None:
            return None
        import llama_cpp

        try:
            return llama_cpp.LlamaGrammar.from_json_schema(json.dumps(query.schema), verbose=False)
        except Exception as error:
            raise BackendError(
                f"backend llama: no grammar can be made of the schema: {_line(error)}", called=False
            ) from error


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
