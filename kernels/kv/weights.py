"""The sha256 of a file of weights, computed once: kept by device, inode, size and times, in memory and in a folder.

A model in several files (`-00001-of-00003.gguf`) has the sha256 of their sha256s.
"""

import contextlib
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from .errors import KvError

_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_known: dict[str, "Weights"] = {}


class Weights(msgspec.Struct, frozen=True):
    """What is known of a file: its sha256, and of a model the hash of its vocabulary."""

    sha256: str
    vocab: str = ""


Stamp = tuple[str, ...]
"""What the files of a model were at a moment: device, inode, size and times of each; empty where they could not be seen."""


def stamp(path: Path) -> Stamp:
    """Return what the files of a model are now."""
    try:
        return tuple(_key(file) for file in parts(path))
    except OSError:
        return ()


def weights_of(path: Path, cache: Path | None = None, loaded: Stamp = ()) -> Weights:
    """Return what is known of a model's or an adapter's file. Raises KvError where it cannot be read.

    `cache` is a folder for what was computed; without it only this process remembers. `loaded` is what the file was when
    it was loaded: of one that another has replaced since, that one's hash must not be told. It is known where it was asked
    for before; KvError is raised where it was not, and for a file that was written over.
    """
    files = parts(path)
    then = loaded or (None,) * len(files)
    found = [
        _one(file, cache) if key is None else _as_loaded(file, key, cache)
        for file, key in zip(files, then, strict=True)
    ]
    if len(found) == 1:
        return found[0]
    joined = hashlib.sha256("".join(part.sha256 for part in found).encode()).hexdigest()
    return Weights(joined, found[0].vocab)


def remember_vocab(path: Path, vocab: str, cache: Path | None = None, loaded: Stamp = ()) -> None:
    """Keep the hash of a model's vocabulary beside that of its weights."""
    key = (loaded or stamp(path) or ("",))[0]
    known = _known.get(key)
    if known is not None:
        _keep(key, msgspec.structs.replace(known, vocab=vocab), cache)


def parts(path: Path) -> list[Path]:
    """Return the files of a model: itself, or all parts of a split one, in order."""
    split = _SPLIT.search(path.name)
    if not split:
        return [path]
    stem, total = path.name[: split.start()], int(split[2])
    return [path.with_name(f"{stem}-{number:05d}-of-{total:05d}.gguf") for number in range(1, total + 1)]


def _as_loaded(path: Path, loaded: str, cache: Path | None) -> Weights:
    """Return what is known of a file as it was when it was loaded."""
    try:
        now = _key(path)
    except OSError:
        now = ""
    known = _known.get(loaded) or _recall(loaded, cache)
    if known is not None:
        _known[loaded] = known
    if now == loaded or (known is None and _content(now) == _content(loaded)):
        return _one(path, cache)
    if known is not None and _inode(now) != _inode(loaded):
        return known  # another file has its name, or none: what was loaded is as it was
    if known is not None and _one(path, cache).sha256 == known.sha256:
        return known  # only its name, its owner or the like has changed
    raise unknown(path)


def unknown(path: Path) -> KvError:
    """Return the error of weights of which nobody knows whether they are what was loaded."""
    return KvError(
        f"the weights {path} were changed since they were loaded, and nobody knows what is at work: load them again"
    )


def _one(path: Path, cache: Path | None) -> Weights:
    try:
        key = _key(path)
        known = _known.get(key) or _recall(key, cache)
        while known is None:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            after = _key(path)  # a file that changed meanwhile is read again
            known, key = (Weights(digest), key) if after == key else (None, after)
    except OSError as error:
        raise KvError(
            f"the weights {path} cannot be read ({error.strerror}): put the file back, or load it again"
        ) from error
    if key not in _known:
        _keep(key, known, cache)
    return known


def _key(path: Path) -> str:
    told = os.stat(path)
    return f"{told.st_dev}-{told.st_ino}-{told.st_size}-{told.st_mtime_ns}-{told.st_ctime_ns}"


def _inode(key: str) -> list[str]:
    return key.split("-")[:2]


def _content(key: str) -> list[str]:
    return key.split("-")[:4]


def _recall(key: str, cache: Path | None) -> Weights | None:
    if cache is None:
        return None
    with contextlib.suppress(OSError, msgspec.DecodeError):
        known = msgspec.json.decode((cache / f"{key}.json").read_bytes(), type=Weights)
        if re.fullmatch(r"[0-9a-f]{64}", known.sha256):
            return known
    return None


def _keep(key: str, known: Weights, cache: Path | None) -> None:
    _known[key] = known
    if cache is None:
        return
    with contextlib.suppress(OSError):  # a full or read-only disk costs the next process one reading of the file
        cache.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=cache, prefix=".weights-")
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(known))
        os.replace(name, cache / f"{key}.json")


def vocab_hash(lib: Any, vocab: Any) -> str:
    """Return the sha256 of a vocabulary: text, score and attributes of every token, and the special ones."""
    digest = hashlib.sha256()
    count = lib.llama_vocab_n_tokens(vocab)
    for token in range(count):
        text = lib.llama_vocab_get_text(vocab, token) or b""
        score = float(lib.llama_vocab_get_score(vocab, token))
        digest.update(b"%d:%s:%a:%d\n" % (len(text), text, score, lib.llama_vocab_get_attr(vocab, token)))
    special = [lib.llama_vocab_bos(vocab), lib.llama_vocab_eos(vocab), lib.llama_vocab_eot(vocab)]
    digest.update(repr((count, special, lib.llama_vocab_type(vocab), lib.llama_vocab_get_add_bos(vocab))).encode())
    return digest.hexdigest()
