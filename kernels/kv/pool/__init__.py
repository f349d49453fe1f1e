"""A KV cache that torch owns: paged blocks in one tensor, tables of who has which, and models that run on it.

A sequence can be forked without a copy, exported through any transport, or read by another process on the same device
where it lies. Tables need nothing; pools need torch, `PoolCache` needs transformers: `pip install 'morphogen[hf]'`.
"""

from typing import TYPE_CHECKING

from morphogen.schemas.faces import lazily

if TYPE_CHECKING:
    from .blocks import Blocks, Copy, Table
    from .errors import MissingExtra, PoolError, PoolFull, PoolMismatch
    from .exporting import export_sequence, import_sequence
    from .fingerprint import fingerprint_of_model, weights_digest
    from .hf_cache import PoolCache
    from .sharing import Borrowed, SharedPool, SharedSequence, borrow
    from .torch_pool import PoolShape, TorchKvPool

_HOMES = {
    # Tables
    "Blocks": "blocks", "Table": "blocks", "Copy": "blocks",
    # Pools
    "TorchKvPool": "torch_pool", "PoolShape": "torch_pool", "PoolCache": "hf_cache",
    # Moving a sequence
    "export_sequence": "exporting", "import_sequence": "exporting",
    "fingerprint_of_model": "fingerprint", "weights_digest": "fingerprint",
    "SharedPool": "sharing", "SharedSequence": "sharing", "Borrowed": "sharing", "borrow": "sharing",
    # What is refused
    "PoolError": "errors", "PoolFull": "errors", "PoolMismatch": "errors", "MissingExtra": "errors",
}  # fmt: skip

__all__ = [
    "Blocks",
    "Borrowed",
    "Copy",
    "MissingExtra",
    "PoolCache",
    "PoolError",
    "PoolFull",
    "PoolMismatch",
    "PoolShape",
    "SharedPool",
    "SharedSequence",
    "Table",
    "TorchKvPool",
    "borrow",
    "export_sequence",
    "fingerprint_of_model",
    "import_sequence",
    "weights_digest",
]

__getattr__ = lazily(__name__, _HOMES, torch="hf")
