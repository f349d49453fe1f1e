"""What cannot be done with a KV state.

MorphogenError
└── KvError                something about a KV state cannot be done: what, where, what to do
    ├── KvRefused          bytes that this context must not take; nothing was written to it
    │   ├── KvMismatch     the bytes are whole, but mean something else here: the field, expected and actual
    │   └── StateTooLarge  there may be no room for them in the cache
    ├── CacheFull          the cache has no room: for tokens, or for a state (StateTooLarge)
    ├── WorkerCrashed      the process that tried the bytes died of them
    └── MissingExtra       an optional package is not installed
"""

from morphogen.schemas.errors import MorphogenError
from morphogen.schemas.kv import Scalar

LLAMA = "pip install 'morphogen[llama]'"


class KvError(MorphogenError):
    """Something about a KV state cannot be done."""


class KvRefused(KvError, ValueError):
    """Bytes that are not a whole, unchanged state that fits; the context is as it was."""


class KvMismatch(KvRefused):
    """A state made by another model, adapter, cache type, library or the like."""

    def __init__(self, differences: "tuple[tuple[str, Scalar, Scalar], ...]") -> None:
        self.differences = differences
        self.field, self.expected, self.actual = differences[0]
        more = f" (and {len(differences) - 1} more: {', '.join(name for name, *_ in differences[1:4])})"
        super().__init__(
            f"this state needs {self.field} {_short(self.expected)}, the context has {_short(self.actual)}"
            f"{more if len(differences) > 1 else ''}: import it where it was made, or compute it again"
        )


class CacheFull(KvError):
    """The cache has no room for more: dropping a sequence may help."""


class StateTooLarge(KvRefused, CacheFull):
    """llama.cpp did not take a whole state, most likely for want of room; the context is as it was."""


class WorkerCrashed(KvError):
    """The process that tried to restore a state died of it; the next call starts a fresh one."""


class MissingExtra(KvError, ImportError):
    """An optional package is not installed; the text names the extra."""


def _short(value: Scalar) -> str:
    told = "nothing" if value is None else str(value)
    return told if len(told) <= 40 else f"{told[:16]}...{told[-8:]}"
