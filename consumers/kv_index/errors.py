"""What can go wrong where other engines are listened to and prefixes are looked up.

MorphogenError
└── KvIndexError
    ├── BadPayload      a message of another engine that is not of its dialect
    ├── BadQuestion     a lookup that cannot be answered as it was asked
    ├── NoIndex         nobody answers lookups
    └── NotListening    an endpoint that cannot be listened to, or a package that is missing for it
"""

from morphogen.schemas.errors import MorphogenError


class KvIndexError(MorphogenError):
    """Raised by the index of KV prefixes and its feeds; catch it to catch all of them."""


class BadPayload(KvIndexError):
    """Raised for bytes that are not what their dialect says; the feed counts them and goes on."""


class BadQuestion(KvIndexError, ValueError):
    """Raised for a lookup that cannot be answered: tokens that are no int32, a block size below one, too long a prompt."""


class NoIndex(KvIndexError):
    """Raised where no process answers lookups: start `morphogen serve kv-index`."""


class NotListening(KvIndexError):
    """Raised where an endpoint cannot be listened to."""
