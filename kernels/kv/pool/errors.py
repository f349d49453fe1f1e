"""What pools refuse.

KvError
└── PoolError          something about a pool cannot be done: what, where, what to do
    ├── PoolFull       no free blocks are left
    ├── PoolMismatch   a state of other layers, heads or types than the pool's, or bytes that are none
    └── MissingExtra   an optional package is not installed
"""

from ..errors import KvError


class PoolError(KvError):
    """Something about a pool cannot be done."""


class PoolFull(PoolError):
    """No free blocks are left; nothing was changed."""


class PoolMismatch(PoolError):
    """A state of other layers, heads or types than the pool's, or bytes that are no state of a pool."""


class MissingExtra(PoolError, ImportError):
    """An optional package is not installed; the text names the extra."""
