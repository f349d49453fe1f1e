"""What a policy has learned, as one safetensors file: its tensors, and its plain state as JSON in the file's header.

The sha256 of the file is the policy's version. Reading one runs no code from it.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphogen.bus.place import is_plain, replace
from morphogen.schemas import line_of

from .errors import CheckpointError, PolicyError

if TYPE_CHECKING:
    import numpy.typing as npt

    Tensors = dict[str, npt.NDArray[Any]]

FORMAT = 1
MAX_BYTES = 256 << 20
_KEY = "morphogen.policy"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: whose it is, its state and tensors, the sha256 of the file, and where that lies."""

    policy: str
    state: dict[str, Any]
    version: str
    tensors: "Tensors" = field(default_factory=dict)
    file: str = "a checkpoint"


def save_checkpoint(
    path: str | os.PathLike[str], policy: str, state: Mapping[str, Any], tensors: "Tensors | None" = None
) -> str:
    """Write a checkpoint in one step and return its sha256; equal contents give equal bytes.

    `state` is anything that JSON can hold; `tensors` are numpy arrays by name. Raises CheckpointError where it cannot
    be written, PolicyError where safetensors is not installed.
    """
    numpy_files = _safetensors()
    try:
        told = json.dumps({"format": FORMAT, "policy": policy, "state": dict(state)}, sort_keys=True, allow_nan=False)
        data: bytes = numpy_files.save(dict(tensors or {}), metadata={_KEY: told})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"policy {policy}: its state cannot be written: {error}") from error
    target = Path(path)
    if not target.name or os.path.isdir(target):
        raise CheckpointError(f"{target}: a folder; name the file to write")
    if not is_plain(target):  # it is read again, which a pipe or a device cannot be
        raise CheckpointError(f"{target}: not a file; name one to write")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace(target, data)
    except OSError as error:
        raise CheckpointError(f"{target}: {error.strerror or error}") from error
    return hashlib.sha256(data).hexdigest()


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError in one line for what is missing, too large, damaged or foreign."""
    numpy_files = _safetensors()
    file = Path(path)
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for, a device may have no end
            raise CheckpointError(f"{file}: not a file")
        if found.st_size > MAX_BYTES:
            raise CheckpointError(f"{file}: {found.st_size:,} bytes are too many for a policy, {MAX_BYTES:,} may be")
        data = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror or error}") from error
    try:
        tensors = dict(numpy_files.load(data))
        length = int.from_bytes(data[:8], "little")
        told = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY])
        form, policy, state = told["format"], told["policy"], told["state"]
        if not isinstance(policy, str) or not isinstance(state, dict):
            raise TypeError("its header is not ours")
    except Exception as error:
        raise CheckpointError(
            f"{file}: not a policy's checkpoint, or damaged: {type(error).__name__}: {line_of(error, 100)}"
        ) from error
    if form != FORMAT:
        raise CheckpointError(
            f"{file}: a checkpoint of format {form!r:.50}, this version reads {FORMAT}: upgrade morphogen"
        )
    return Checkpoint(policy, state, hashlib.sha256(data).hexdigest(), tensors, str(file))


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise PolicyError("checkpoints of policies need safetensors: pip install 'morphogen[adapt]'") from error
    return safetensors.numpy
