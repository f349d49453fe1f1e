"""One sequence of a model, as a session needs it: read tokens, ask for the next logits, save and load the KV state.

Two kinds: `LlamaSpeaker` for a `llama_cpp.Llama` of the user's own, `ContextSpeaker` for one sequence of a worker's
context.
"""

import ctypes
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from morphogen.kernels.kv import (
    CacheFull,
    IsolatedImporter,
    KvRefused,
    KvState,
    RawContext,
    export_kv,
    fingerprint_of,
    import_kv,
    open_kv,
)
from morphogen.kernels.kv.llama import slid_past
from morphogen.schemas.kv import Fingerprint, KvRef

from .errors import SessionError

if TYPE_CHECKING:
    import numpy.typing as npt

_PIECE = 4096  # bytes of the longest piece of a vocabulary


class Speaker(Protocol):
    """One sequence of a model."""

    fingerprint: Fingerprint
    limit: int  # tokens that fit
    batch: int  # tokens of one computation

    @property
    def count(self) -> int:
        """How many tokens its cache holds."""

    def matching(self, tokens: Sequence[int]) -> int:
        """Return how many of `tokens`, from the first on, are what the cache begins with."""

    def truncate(self, count: int) -> None:
        """Keep the first so many tokens."""

    def compute(self, tokens: Sequence[int]) -> None:
        """Read at most `batch` more tokens, in one computation."""

    def logits(self) -> "npt.NDArray[np.float32] | None":
        """Return the logits of the next token; None where they are not known."""

    def tokenize(self, text: str, first: bool) -> list[int]:
        """Return the tokens of a text; `first` where nothing comes before it."""

    def piece(self, token: int) -> bytes:
        """Return what a token says."""

    def mark(self, token: int) -> str:
        """Return how a token is written in a template, control tokens too."""

    def ends(self, token: int) -> bool:
        """Return whether a token ends a reply."""

    def template(self) -> tuple[str, str, str] | None:
        """Return the model's chat template, and how it writes the beginning and the end; None where it has none."""

    def save(self, into: Any) -> KvRef:
        """Write the KV state into a file or a transport."""

    def load(self, state: "Path | KvState", tokens: Sequence[int]) -> None:
        """Take over a state, which must be of these tokens. Raises KvRefused, and is as it was."""


class _Vocabulary(ABC):
    """What is asked of a model's vocabulary, the same for both kinds."""

    fingerprint: Fingerprint
    limit: int
    batch: int
    _native: Any  # llama.cpp's context

    def _open(self, ctx: Any) -> None:
        from llama_cpp import llama_cpp

        self._lib = llama_cpp
        self._native = ctx
        self._model = llama_cpp.llama_get_model(ctx)
        self._words = llama_cpp.llama_model_get_vocab(self._model)

    @abstractmethod
    def _check_open(self) -> None:
        """Raise SessionError where the context was closed: llama.cpp would read freed memory, and end the process."""

    @property
    def _ctx(self) -> Any:
        self._check_open()
        return self._native

    @property
    def _vocab(self) -> Any:
        self._check_open()
        return self._words

    def tokenize(self, text: str, first: bool) -> list[int]:
        """Return the tokens of a text."""
        data = text.encode("utf-8", "replace")
        bos = first and bool(self._lib.llama_vocab_get_add_bos(self._vocab))
        if bos and text.startswith(self._written(self._lib.llama_vocab_bos(self._vocab)) or "\0"):
            bos = False  # the template has written it
        room = len(data) + 8
        while True:
            found = (ctypes.c_int32 * room)()
            count = int(self._lib.llama_tokenize(self._vocab, data, len(data), found, room, bos, True))
            if count >= 0:
                return list(found[:count])
            room = -count

    def piece(self, token: int) -> bytes:
        """Return what a token says."""
        return self._bytes(token, special=False)

    def mark(self, token: int) -> str:
        """Return how a token is written."""
        return self._written(token)

    def ends(self, token: int) -> bool:
        """Return whether a token ends a reply."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def template(self) -> tuple[str, str, str] | None:
        """Return the model's chat template."""
        self._check_open()
        found = self._lib.llama_model_chat_template(self._model, None)
        if not found:
            return None
        begin, end = self._lib.llama_vocab_bos(self._vocab), self._lib.llama_vocab_eos(self._vocab)
        return found.decode("utf-8", "replace"), self._written(begin), self._written(end)

    def _written(self, token: int) -> str:
        return self._bytes(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def _bytes(self, token: int, *, special: bool) -> bytes:
        room = ctypes.create_string_buffer(_PIECE)
        size = int(self._lib.llama_token_to_piece(self._vocab, token, room, _PIECE, 0, special))
        return room.raw[:size] if size > 0 else b""


class LlamaSpeaker(_Vocabulary):
    """A `llama_cpp.Llama`. Others may use it in between: what they left there is noticed, and computed over."""

    def __init__(self, llm: Any, *, cache: Path | None = None) -> None:
        self._llm, self._cache = llm, cache
        self.fingerprint = fingerprint_of(llm, cache=cache)  # refuses what is closed, or no model at all
        if isinstance(llm, RawContext):
            raise SessionError("a session needs a llama_cpp.Llama, not a RawContext, which has many sequences")
        self._open(llm.ctx)
        self.limit = min(int(llm.n_ctx()), len(llm.input_ids))
        self.batch = int(llm.n_batch)

    @property
    def count(self) -> int:
        """How many tokens were evaluated."""
        return int(self._llm.n_tokens)

    def matching(self, tokens: Sequence[int]) -> int:
        """Return how many of `tokens` were evaluated; none where a sliding window has left their end."""
        here = _common(np.asarray(self._llm.input_ids[: self.count], np.int32), np.asarray(tokens, np.int32))
        return 0 if slid_past(self._ctx, 0, here) else here

    def truncate(self, count: int) -> None:
        """Keep the first so many tokens; `eval` removes the others' cells."""
        if count < self._llm.n_tokens:
            ctx = self._ctx
            if count == 0:
                self._llm.reset()
                self._llm._ctx.kv_cache_clear()
            elif slid_past(ctx, 0, count) or not self._llm._ctx.kv_cache_seq_rm(-1, count, -1):
                raise SessionError("this model's memory cannot forget a part of a sequence: reset it")
            self._llm.n_tokens = count
            self._llm._requires_eval = True

    def compute(self, tokens: Sequence[int]) -> None:
        """Evaluate tokens."""
        if self.count + len(tokens) > self.limit:
            raise SessionError(f"{self.count + len(tokens)} tokens do not fit into a context of {self.limit}")
        self._check_open()
        self._llm.eval(list(tokens))

    def logits(self) -> "npt.NDArray[np.float32] | None":
        """Return the logits of the last evaluation."""
        if not self._llm.n_tokens or getattr(self._llm, "_requires_eval", True):
            return None
        found = self._lib.llama_get_logits_ith(self._ctx, -1)
        return np.ctypeslib.as_array(found, shape=(self._lib.llama_vocab_n_tokens(self._vocab),)) if found else None

    def save(self, into: Any) -> KvRef:
        """Write the KV state."""
        return _ref(export_kv(self._llm, into=into, cache=self._cache))

    def load(self, state: "Path | KvState", tokens: Sequence[int]) -> None:
        """Take over a state."""
        _take(self._llm, 0, state, tokens, self._cache)

    def _check_open(self) -> None:
        if getattr(self._llm._ctx, "ctx", None) is None:
            raise SessionError("the Llama of this session is closed: open it again, and the session on it")


class ContextSpeaker(_Vocabulary):
    """One sequence of a context that many sessions share; `seq` is None while it has none.

    `timed` is told of each computation: tokens and seconds. `relieve` is asked to make room in the cache that all share,
    and says whether it did. With an `importer`, a state is tried in its process first.
    """

    def __init__(
        self,
        context: RawContext,
        *,
        fingerprint: Fingerprint,
        cache: Path | None = None,
        timed: Callable[[int, float], object] | None = None,
        relieve: Callable[[int], bool] | None = None,
        importer: IsolatedImporter | None = None,
    ) -> None:
        self._context, self._cache, self._timed, self._importer = context, cache, timed, importer
        self._relieve = relieve
        self.seq: int | None = None
        self._open(context.ctx)
        self.fingerprint = fingerprint
        self.limit = context.room
        self.batch = int(context.params.n_batch)

    @property
    def count(self) -> int:
        """How many tokens the sequence holds."""
        return 0 if self.seq is None else len(self._context.tokens(self.seq))

    def matching(self, tokens: Sequence[int]) -> int:
        """Return how many of `tokens` the sequence begins with; none where a sliding window has left their end."""
        if self.seq is None:
            return 0
        here = _common(self._context.tokens(self.seq), np.asarray(tokens, np.int32))
        return 0 if slid_past(self._ctx, self.seq, here) else here

    def truncate(self, count: int) -> None:
        """Keep the first so many tokens."""
        if self.seq is not None and count == 0:
            self._context.drop(self.seq)
        elif self.seq is not None:
            self._context.truncate(self.seq, count)

    def compute(self, tokens: Sequence[int]) -> None:
        """Decode tokens."""
        began = time.perf_counter()
        self._with_room(lambda seq: self._context.decode(seq, tokens))
        if self._timed is not None:
            self._timed(len(tokens), time.perf_counter() - began)

    def logits(self) -> "npt.NDArray[np.float32] | None":
        """Return the logits of the next token."""
        return None if self.seq is None else self._context.logits(self.seq)

    def save(self, into: Any) -> KvRef:
        """Write the KV state."""
        return _ref(export_kv(self._context, self._place(), into=into, cache=self._cache))

    def load(self, state: "Path | KvState", tokens: Sequence[int]) -> None:
        """Take over a state."""
        self._with_room(lambda seq: _take(self._context, seq, state, tokens, self._cache, self._importer))

    def _with_room(self, work: Callable[[int], object]) -> None:
        """Do what needs cells, and again whenever that failed and others have given some up."""
        seq = self._place()
        while True:
            try:
                work(seq)
                return
            except CacheFull:
                if self._relieve is None or not self._relieve(seq):
                    raise

    def _check_open(self) -> None:
        if self._context.ctx is None:
            raise SessionError("the context of this session is closed")

    def _place(self) -> int:
        if self.seq is None:
            raise SessionError("this session does not sit on a sequence of the context")
        return self.seq


def _take(
    target: Any,
    seq: int,
    state: "Path | KvState",
    tokens: Sequence[int],
    cache: Path | None,
    importer: IsolatedImporter | None = None,
) -> None:
    if isinstance(state, Path):
        state = open_kv(state)
    if not np.array_equal(state.tokens, np.asarray(tokens, np.int32)):
        raise KvRefused(f"{state.where} holds other tokens than the journal says: compute them again")
    if importer is not None:
        importer.import_into(target, state, seq, cache=cache)
    else:
        import_kv(target, state, seq, cache=cache)


def _ref(made: "KvState | KvRef") -> KvRef:
    assert isinstance(made, KvRef)
    return made


def _common(left: "npt.NDArray[np.int32]", right: "npt.NDArray[np.int32]") -> int:
    size = min(len(left), len(right))
    differ = np.flatnonzero(left[:size] != right[:size])
    return int(differ[0]) if len(differ) else size
