"""KV states: take the cache of one sequence out of a context and put it into another, which goes on as if it had read the text.

`export_kv` and `import_kv` work on a `llama_cpp.Llama` and on a `RawContext` with many sequences. Bytes that are
cut off, changed, or made by another model, adapter, cache type or library are refused before llama.cpp sees them. Knows
contexts and bytes; how bytes travel is `transport`, how long they live `leases`. Needs `pip install 'morphogen[llama]'`.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.faces import lazily

if TYPE_CHECKING:
    from .errors import CacheFull, KvError, KvMismatch, KvRefused, MissingExtra, WorkerCrashed
    from .exporting import export_kv, kv_size
    from .files import open_kv
    from .fingerprint import fingerprint_of
    from .format import Header
    from .importing import Imported, import_kv
    from .isolated import IsolatedImporter
    from .raw import RawContext
    from .state import KvState

_HOMES = {
    # Moving a state
    "export_kv": "exporting", "kv_size": "exporting", "import_kv": "importing", "Imported": "importing",
    "IsolatedImporter": "isolated",
    # What it is
    "KvState": "state", "Header": "format", "open_kv": "files", "fingerprint_of": "fingerprint",
    # Where it lives
    "RawContext": "raw",
    # What is refused
    "CacheFull": "errors", "KvError": "errors", "KvRefused": "errors", "KvMismatch": "errors", "WorkerCrashed": "errors",
    "MissingExtra": "errors",
}  # fmt: skip

__all__ = [
    "CacheFull",
    "Header",
    "Imported",
    "IsolatedImporter",
    "KvError",
    "KvMismatch",
    "KvRefused",
    "KvState",
    "MissingExtra",
    "RawContext",
    "WorkerCrashed",
    "export_kv",
    "fingerprint_of",
    "import_kv",
    "kv_size",
    "open_kv",
]

__getattr__ = lazily(__name__, _HOMES)
