"""What export and import need of a context, and how a `llama_cpp.Llama` gives it.

A seat is a context and what its owner knows of it: the tokens of each sequence, the file of the weights, the adapters at
work. `RawContext` is one by itself; `seat_of` makes one of a `Llama`.
"""

import math
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from . import llama
from .errors import KvError
from .loaded import maps_its_file, plain, stamp_loaded
from .weights import Stamp

Tokens = np.ndarray[Any, np.dtype[np.int32]]
Logits = np.ndarray[Any, np.dtype[np.float32]]
Adapters = tuple[tuple[Path, float], ...]


class Seat(Protocol):
    """A context whose sequences can be exported and replaced."""

    @property
    def ctx(self) -> Any:
        """llama.cpp's context."""

    @property
    def params(self) -> Any:
        """The `llama_context_params` that it was made with."""

    @property
    def path(self) -> Path:
        """The file of its weights."""

    @property
    def loras(self) -> Adapters:
        """The adapters at work: file and scale of each."""

    @property
    def stamps(self) -> Mapping[Path, Stamp]:
        """What files of weights and adapters were when they were loaded, as far as that was seen."""

    @property
    def overrides(self) -> str:
        """What was changed of the file's metadata at loading; empty where nothing was."""

    @property
    def sequences(self) -> int:
        """How many sequences there may be."""

    @property
    def room(self) -> int:
        """How many tokens a sequence may have."""

    def tokens(self, seq: int) -> Tokens:
        """Return the ids of the tokens in a sequence's cache."""

    def vouch(self, seq: int) -> None:
        """Raise KvError where what a sequence holds was not all made with the adapters at work."""

    def settle(self, seq: int) -> None:
        """Remove what a sequence's cache holds beyond its tokens."""

    def logits(self, seq: int) -> Logits | None:
        """Return the logits of the next token where they are known, as a view that the next decode changes."""

    def arm(self, seq: int, tokens: Tokens) -> bool:
        """Make sure that `adopt` can put logits in place; may use the cache of an empty sequence. False if it cannot."""

    def adopt(self, seq: int, tokens: Tokens, logits: Logits | None) -> None:
        """Take note that a sequence's cache now holds these tokens; `logits` are those of the next one, if known."""


class LlamaSeat:
    """A `llama_cpp.Llama`: one sequence, number 0."""

    sequences = 1

    def __init__(self, llm: Any, loras: Adapters | None = None) -> None:
        self._llm = llm
        self.ctx = llm.ctx
        self.params = llm.context_params
        self.stamps = _seen(llm)
        self.path, *adapter = self.stamps
        self.loras = tuple((path, float(llm.lora_scale)) for path in adapter) if loras is None else loras
        self.overrides = repr(sorted(llm.kv_overrides.items())) if getattr(llm, "kv_overrides", None) else ""
        self.room = min(int(llm.n_ctx()), len(llm.input_ids))

    def tokens(self, seq: int) -> Tokens:
        """Return the ids of what was evaluated."""
        return np.array(self._llm.input_ids[: self._llm.n_tokens], np.int32)

    def vouch(self, seq: int) -> None:
        """Vouch: a Llama has the adapter of its constructor, always, and others are told of by `loras=`."""

    def settle(self, seq: int) -> None:
        """Remove the cells that a reset or a rejected draft left; `eval` would do the same."""
        llama.remove(self.ctx, seq, self._llm.n_tokens, -1)

    def logits(self, seq: int) -> Logits | None:
        """Return the logits of the last `eval`, None where a restore or a rollback came after it."""
        if getattr(self._llm, "_requires_eval", True) or not self._llm.n_tokens:
            return None
        return llama.logits_row(self.ctx)

    def arm(self, seq: int, tokens: Tokens) -> bool:
        """Make llama.cpp hold one row of logits, by decoding one token where it never did."""
        if self._row() is None:
            llama.remove(self.ctx, seq)
            llama.decode_one(self.ctx, seq, int(tokens[0]), 0)
        return self._row() is not None

    def adopt(self, seq: int, tokens: Tokens, logits: Logits | None) -> None:
        """Let the Llama go on behind `tokens`, as if it had evaluated them."""
        llm, count = self._llm, len(tokens)
        llm.input_ids[:count] = tokens
        llm.n_tokens = count
        if getattr(llm, "_logits_all", False):
            llm.scores[:count, :] = np.nan  # nobody computed them here, and numpy gave the rows unwritten
        row = self._row() if logits is not None else None
        if row is not None and logits is not None:
            row[:] = logits
            if getattr(llm, "_logits_all", False):
                llm.scores[count - 1, :] = logits
        llm._requires_eval = row is None  # generate() then replays the last token

    def _row(self) -> Logits | None:
        # llama.cpp writes a line to stderr where there is no row; a context that never decoded has no row to ask for
        if not hasattr(self._llm, "_requires_eval"):
            return None
        return llama.logits_row(self.ctx)


_files: "weakref.WeakKeyDictionary[Any, dict[Path, Stamp]]" = weakref.WeakKeyDictionary()


def _seen(llm: Any) -> Mapping[Path, Stamp]:
    """Return what the files that a Llama loaded were when it did: the model's, and its own adapter's if any.

    Raises KvError where a file may have changed before the Llama was met first.
    """
    found = _files.get(llm)
    if found is None:
        model, *adapter = (Path(name).absolute() for name in (llm.model_path, llm.lora_path) if name)
        found = {plain(model): stamp_loaded(llm.ctx, model, mapped=maps_its_file(llm))}
        found |= {plain(path): stamp_loaded(llm.ctx, path) for path in adapter}
        if all(found.values()):  # a file that is away may come back as another one
            _files[llm] = found
    return found


def seat_of(llm: Any, loras: "Sequence[tuple[str | Path, float]] | None" = None) -> Seat:
    """Return the seat of a `RawContext` or a `Llama`. Raises KvError for anything else, and for a closed one."""
    adapters = None if loras is None else tuple((Path(path), float(scale)) for path, scale in loras)
    for path, scale in adapters or ():
        if not math.isfinite(scale):
            raise KvError(f"the scale of {path} is {scale}: give a number")
    if hasattr(llm, "adopt") and hasattr(llm, "settle"):
        if adapters is not None:
            raise KvError("a RawContext knows its adapters: change them with set_loras, not with loras=")
        seat: Seat = llm
    elif hasattr(llm, "input_ids") and hasattr(llm, "context_params"):
        if getattr(getattr(llm, "_ctx", None), "ctx", None) is None:
            raise KvError("this Llama is closed")
        seat = LlamaSeat(llm, adapters)
    else:
        raise KvError(f"a KV state needs a llama_cpp.Llama or a RawContext, not a {type(llm).__name__}")
    if seat.ctx is None:
        raise KvError("this context is closed")
    llama.memory(seat.ctx)
    return seat


def check_sequence(seat: Seat, seq: int) -> None:
    """Raise KvError for a number that no sequence of the context has: llama.cpp would abort the process."""
    if not isinstance(seq, int):
        raise KvError(f"the number of a sequence is an int, not the {type(seq).__name__} {seq!r}")
    if not 0 <= seq < seat.sequences:
        raise KvError(f"there is no sequence {seq}: this context has {seat.sequences}, from 0")
