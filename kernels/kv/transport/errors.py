"""What transports refuse.

KvError
└── TransportError     bytes cannot be moved this way: what, where, what to do
    ├── NoRoom         the medium is full, or the size is more than it can ever hold
    ├── Gone           nothing is there any more
    ├── BadRef         a reference that this transport cannot have made, or one that lies about its size
    ├── NoDevice       no GPU, or not the one that the bytes are on
    └── MissingExtra   an optional package is not installed
"""

from ..errors import KvError


class TransportError(KvError):
    """The bytes of a KV state cannot be moved this way."""


class NoRoom(TransportError):
    """The medium is full, or can never hold so much."""


class Gone(TransportError):
    """Nothing is there any more."""


class BadRef(TransportError):
    """A reference that this transport cannot have made, or one that lies about its size."""


class NoDevice(TransportError):
    """There is no GPU here, or not the one that the bytes are on."""


class MissingExtra(TransportError, ImportError):
    """An optional package is not installed; the text names the extra."""
