"""A llama.cpp context with many sequences, the tokens that each of them holds, and their next logits.

One context serves many agents: in a unified cache `copy` lets a sequence share the cells of another, moving no byte.
"""

import ctypes
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from . import llama
from .contexts import Adapters, Logits, Tokens, check_sequence
from .errors import CacheFull, KvError
from .fingerprint import type_number
from .loaded import stamp_after, stamp_loaded
from .weights import Stamp, stamp

_CELLS = 2**31 - 1
_SEQUENCES = 256  # LLAMA_MAX_SEQ
_THREADS = 512  # GGML_MAX_N_THREADS


class RawContext:
    """A context and what it was told: which tokens are in which sequence.

    `open` loads a model and makes a context; the constructor takes a context that someone else made, with the
    `llama_context_params` it was made with and the file of its weights, and leaves both to their owner. `loaded` is what the
    file was when it was loaded; without it the machine's clock has to tell whether it has changed since.
    """

    def __init__(
        self, ctx: Any, params: Any, path: "str | Path", *, overrides: str = "", loaded: Stamp | None = None
    ) -> None:
        lib = llama.library()
        self.ctx, self.params, self.path, self.overrides = ctx, params, Path(path).absolute(), overrides
        self.stamps: dict[Path, Stamp] = {self.path: stamp_loaded(ctx, self.path) if loaded is None else loaded}
        self.loras: Adapters = ()
        self.sequences = int(lib.llama_n_seq_max(ctx))
        self.room = int(lib.llama_n_ctx_seq(ctx))
        self._model = lib.llama_get_model(ctx)
        self._vocab = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model)))
        self._width = int(lib.llama_n_batch(ctx))
        self._batch = lib.llama_batch_init(self._width, 0, 1)
        self._tokens: dict[int, list[int]] = {}
        self._logits: dict[int, Logits] = {}
        self._adapters: dict[Path, Any] = {}
        self._made: dict[int, Adapters | None] = {}  # with which a sequence was read; None: with several
        self._owned = False

    @classmethod
    def open(
        cls,
        path: "str | Path",
        *,
        n_ctx: int = 4096,
        sequences: int = 1,
        type_k: "str | int" = "f16",
        type_v: "str | int" = "f16",
        flash_attn: bool = False,
        unified: bool = True,
        swa_full: bool = True,
        n_batch: int = 512,
        n_threads: int | None = None,
        gpu_layers: int = 0,
        loras: "Sequence[tuple[str | Path, float]]" = (),
        **params: Any,
    ) -> Self:
        """Load a model and make a context of `n_ctx` cells for that many sequences; `close` frees both.

        More `params` are fields of `llama_context_params`, such as `rope_freq_base`. Values in a quantized type need
        flash attention. Raises KvError where a number is out of bounds, the model cannot be loaded or the context not be
        made.
        """
        lib = llama.library()
        if not Path(path).is_file():
            raise KvError(f"no GGUF file at {path}")
        _within("the context", n_ctx, _CELLS)  # beyond these bounds llama.cpp ends the process, or wraps the number
        _within("a batch", n_batch, _CELLS)
        _within("the number of sequences", sequences, min(n_batch, n_ctx, _SEQUENCES))
        if n_threads is not None:
            _within("the number of threads", n_threads, _THREADS)
        lib.llama_backend_init()
        chosen = lib.llama_model_default_params()
        chosen.n_gpu_layers = gpu_layers
        wanted = lib.llama_context_default_params()
        wanted.n_ctx, wanted.n_seq_max, wanted.n_batch = n_ctx, sequences, min(n_batch, n_ctx)
        wanted.n_ubatch = wanted.n_batch
        wanted.type_k, wanted.type_v = (
            kind if isinstance(kind, int) else type_number(kind) for kind in (type_k, type_v)
        )
        wanted.flash_attn_type = int(flash_attn)  # said, not left to llama.cpp: the layout of the values hangs on it
        wanted.kv_unified, wanted.swa_full = unified, swa_full
        if n_threads is not None:
            wanted.n_threads = wanted.n_threads_batch = n_threads
        for name, value in params.items():  # the last word: flash_attn_type and kv_unified may come this way, too
            if name not in dict(wanted._fields_):
                raise KvError(f"llama.cpp's contexts have no parameter {name!r}")
            setattr(wanted, name, value)
        before = stamp(Path(path).absolute())  # a file that is replaced while it is read is not what this says
        with llama.quiet():
            model = lib.llama_model_load_from_file(os.fsencode(path), chosen)
            if not model:
                raise KvError(f"llama.cpp cannot load {path}: is it a whole GGUF file?")
            ctx = lib.llama_init_from_model(model, wanted)
        if not ctx:
            lib.llama_model_free(model)
            raise KvError(
                f"llama.cpp cannot make a context of {n_ctx} cells, {type_k}/{type_v}: "
                "a quantized V needs flash_attn=True, and heads must be a multiple of 32"
            )
        try:
            made = cls(ctx, wanted, path, loaded=stamp_after(Path(path).absolute(), before))
        except KvError:
            lib.llama_free(ctx)
            lib.llama_model_free(model)
            raise
        made._owned = True
        try:
            made.set_loras(loras)
        except KvError:
            made.close()
            raise
        return made

    def set_loras(self, loras: "Sequence[tuple[str | Path, float]]") -> None:
        """Put these adapters (file, scale) to work, and no others. What is in the cache stays as it was made.

        Raises KvError for a file that is none of this model.
        """
        lib = llama.library()
        wanted = tuple((Path(path).absolute(), float(scale)) for path, scale in loras)
        for path, scale in wanted:
            if not math.isfinite(scale):
                raise KvError(f"the scale of {path} is {scale}: give a number")
            if path not in self._adapters:
                self.stamps[path] = stamp(path)
                with llama.quiet():
                    found = lib.llama_adapter_lora_init(self._model, os.fsencode(path)) if path.is_file() else None
                if not found:
                    raise KvError(f"{path} is no LoRA adapter of this model")
                self._adapters[path] = found
        pointers = (lib.llama_adapter_lora_p_ctypes * len(wanted))(*(self._adapters[path] for path, _ in wanted))
        scales = (ctypes.c_float * len(wanted))(*(scale for _, scale in wanted))
        with llama.quiet():
            status = lib.llama_set_adapters_lora(self.ctx, pointers, len(wanted), scales)
        if status:
            raise KvError("llama.cpp did not take the adapters")
        self.loras = wanted

    def decode(self, seq: int, tokens: Sequence[int]) -> Logits:
        """Add tokens to a sequence; return the logits after the last one.

        Raises KvError where there is no room: the sequence is then as before, or empty, and the text says so, where its
        memory cannot forget a part.
        """
        if not len(tokens):
            raise KvError("there are no tokens to decode")
        for start in range(0, len(tokens), self._width):
            part = tokens[start : start + self._width]
            try:
                self._decode([(seq, int(token)) for token in part], {len(part) - 1: seq})
            except KvError:
                if start:
                    self._take_back(seq, start)
                raise
        return self._logits[seq]

    def step(self, tokens: Mapping[int, int]) -> dict[int, Logits]:
        """Add one token to each of some sequences, in one batch; return the logits of each."""
        if not 0 < len(tokens) <= self._width:
            raise KvError(f"a step takes 1 to {self._width} sequences, not {len(tokens)}")
        pairs = list(tokens.items())
        self._decode(pairs, {row: seq for row, (seq, _) in enumerate(pairs)})
        return {seq: self._logits[seq] for seq in tokens}

    def greedy(self, seq: int, count: int) -> list[int]:
        """Return the next `count` tokens of a sequence, each the likeliest, and add them to it.

        Raises KvError where the logits of its next token are not known: decode a token first.
        """
        said: list[int] = []
        for _ in range(count):
            logits = self.logits(seq)
            if logits is None:
                raise KvError(f"the next logits of sequence {seq} are not known: decode a token, or import with logits")
            said.append(int(logits.argmax()))
            self.decode(seq, said[-1:])
        return said

    def copy(self, source: int, target: int, upto: int | None = None) -> None:
        """Let `target` hold the first `upto` tokens of `source`, all where None; in a unified cache no byte moves."""
        check_sequence(self, source)
        check_sequence(self, target)
        count = len(self._tokens.get(source, ())) if upto is None else upto
        if not 0 <= count <= len(self._tokens.get(source, ())):
            raise KvError(f"sequence {source} has {len(self._tokens.get(source, ()))} tokens, not {count}")
        whole = count == len(self._tokens.get(source, ()))
        if not whole and not self.params.kv_unified:
            raise KvError("part of a sequence can be copied in a unified cache only: copy it whole, then truncate")
        if source == target:
            raise KvError(f"sequence {source} cannot be copied onto itself")
        if not whole and llama.slid_past(self.ctx, source, count):
            raise KvError(f"the window of sequence {source} has left its first {count} tokens: copy it whole")
        llama.remove(self.ctx, target)
        llama.copy(self.ctx, source, target, *((-1, -1) if whole else (0, count)))
        self._tokens[target] = self._tokens.get(source, [])[:count]
        self._made[target] = self._made.get(source, ())
        self._logits.pop(target, None)
        if whole and source in self._logits:
            self._logits[target] = self._logits[source]

    def truncate(self, seq: int, count: int) -> None:
        """Keep the first `count` tokens of a sequence.

        Raises KvError where this memory cannot forget a part, or has only the end of the text (a sliding window) and could
        not go on from there; the sequence is then as before.
        """
        check_sequence(self, seq)
        held = self._tokens.get(seq, [])
        if count < len(held):
            if llama.slid_past(self.ctx, seq, count) or not llama.remove(self.ctx, seq, count, -1):
                raise KvError("this model's memory cannot forget a part of a sequence: drop it and decode again")
            del held[max(0, count) :]
            self._logits.pop(seq, None)

    def drop(self, seq: int) -> None:
        """Forget a sequence; its cells are free unless another one shares them."""
        check_sequence(self, seq)
        llama.remove(self.ctx, seq)
        self._tokens.pop(seq, None)
        self._logits.pop(seq, None)
        self._made.pop(seq, None)

    def free(self) -> int | None:
        """Return the number of a sequence that holds nothing, None where all do."""
        return next((seq for seq in range(self.sequences) if llama.last_position(self.ctx, seq) < 0), None)

    def note(self, seq: int, tokens: Sequence[int]) -> None:
        """Tell which tokens are in a sequence of a context that someone else decoded."""
        check_sequence(self, seq)
        self._tokens[seq] = [int(token) for token in tokens]
        self._logits.pop(seq, None)
        self._made[seq] = _at_work(self.loras)

    def tokens(self, seq: int) -> Tokens:
        """Return the ids of the tokens in a sequence."""
        return np.array(self._tokens.get(seq, ()), np.int32)

    def vouch(self, seq: int) -> None:
        """Raise KvError for a sequence that was read with other adapters than those at work: its cache is not theirs."""
        if self._tokens.get(seq) and self._made.get(seq, ()) != _at_work(self.loras):
            raise KvError(
                f"sequence {seq} was read with other adapters than are at work now: "
                "put those to work that it was read with (set_loras), or drop it and read it again"
            )

    def settle(self, seq: int) -> None:
        """Nothing is to be removed: what a sequence holds was decoded through this object, or noted."""

    def logits(self, seq: int) -> Logits | None:
        """Return the logits of a sequence's next token, None where they are not known."""
        return self._logits.get(seq)

    def arm(self, seq: int, tokens: Tokens) -> bool:
        """Logits are kept here, so any can be taken over."""
        return True

    def adopt(self, seq: int, tokens: Tokens, logits: Logits | None) -> None:
        """Take note that a sequence now holds these tokens, and what the logits of its next one are."""
        self._tokens[seq] = tokens.tolist()
        self._made[seq] = _at_work(self.loras)
        self._logits.pop(seq, None)
        if logits is not None:
            self._logits[seq] = np.array(logits, np.float32)

    def close(self) -> None:
        """Free the context and the model where `open` made them; harmless when done twice."""
        lib = llama.library()
        if self.ctx is None:
            return
        lib.llama_batch_free(self._batch)
        with llama.quiet():
            if self._owned:
                lib.llama_free(self.ctx)
            for adapter in self._adapters.values():
                lib.llama_adapter_lora_free(adapter)
            if self._owned:
                lib.llama_model_free(self._model)
        self.ctx = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_back(self, seq: int, count: int) -> None:
        """Forget the last `count` tokens. Raises KvError where only the whole sequence could be."""
        try:
            self.truncate(seq, len(self._tokens[seq]) - count)
        except KvError as error:
            self.drop(seq)
            raise KvError(
                f"there was no room for all tokens, and this memory cannot forget a part: sequence {seq} is empty now, "
                "decode it again from its beginning"
            ) from error

    def _decode(self, pairs: list[tuple[int, int]], rows: dict[int, int]) -> None:
        batch = self._batch
        ends = {seq: len(self._tokens.get(seq, ())) for seq, _ in pairs}
        for row, (seq, token) in enumerate(pairs):
            check_sequence(self, seq)
            if not 0 <= token < self._vocab:
                raise KvError(f"there is no token {token}: the vocabulary has {self._vocab}")
            batch.token[row], batch.pos[row], batch.n_seq_id[row] = token, ends[seq], 1
            batch.seq_id[row][0], batch.logits[row] = seq, int(row in rows)
            ends[seq] += 1
        batch.n_tokens = len(pairs)
        with llama.quiet():
            status = llama.library().llama_decode(self.ctx, batch)
        if status != 0:
            for seq in {seq for seq, _ in pairs}:
                llama.remove(self.ctx, seq, len(self._tokens.get(seq, ())), -1)
            failed = f"could not decode {len(pairs)} tokens"
            if status == 1:
                raise CacheFull(f"{failed}: there is no room in the cache: drop a sequence")
            raise KvError(f"{failed}: llama.cpp's status is {status}")
        now = _at_work(self.loras)
        for seq in {seq for seq, _ in pairs}:
            self._made[seq] = now if not self._tokens.get(seq) or self._made.get(seq) == now else None
        for seq, token in pairs:
            self._tokens.setdefault(seq, []).append(token)
        for row, seq in rows.items():
            found = llama.logits_row(self.ctx, row)
            assert found is not None
            self._logits[seq] = found.copy()


def _within(what: str, number: int, most: int) -> None:
    if not 1 <= number <= most:
        raise KvError(f"{what} is {number:,}: from 1 to {most:,} can be")


def _at_work(loras: Adapters) -> Adapters:
    """Return the adapters that change anything, in one order."""
    return tuple(sorted((path, scale) for path, scale in loras if scale != 0.0))
