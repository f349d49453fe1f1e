"""Ed25519 (RFC 8032) signatures: a private key is 32 bytes, a public key 64 hexadecimal digits.

Which keys to trust is the caller's to say, each time; there is no list on disk, and no default.
"""

import re
from collections.abc import Iterable

from .errors import KeyRefused, MissingExtra

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
except ImportError as missing:
    raise MissingExtra("signatures need cryptography: pip install 'morphogen[adapt]'") from missing

_PUBLIC = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")


def new_key() -> bytes:
    """Return a fresh private key, from the system's randomness. Keep it secret; `public_key` is what others need."""
    return Ed25519PrivateKey.generate().private_bytes_raw()


def public_key(key: bytes) -> str:
    """Return the public key of a private one.

    Raises:
        KeyRefused: it is not 32 bytes.
    """
    return _private(key).public_key().public_bytes_raw().hex()


def sign(key: bytes, message: bytes) -> str:
    """Return the signature of a message, as 128 hexadecimal digits.

    Raises:
        KeyRefused: the key is not 32 bytes.
    """
    return _private(key).sign(message).hex()


def signed(signer: str, signature: str, message: bytes) -> bool:
    """Tell whether `signer` signed the message; anything malformed is False."""
    try:
        if not _PUBLIC.fullmatch(signer) or not _SIGNATURE.fullmatch(signature):  # one spelling: no capital hex
            return False
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def trusted_keys(keys: Iterable[str]) -> frozenset[str]:
    """Return public keys as a set.

    Raises:
        KeyRefused: one of them is not 64 lower-case hexadecimal digits.
    """
    if isinstance(keys, str):
        raise KeyRefused("trusted: give a list of public keys, not one string")
    found = frozenset(keys)
    for key in found:
        if not isinstance(key, str) or not _PUBLIC.fullmatch(key):
            raise KeyRefused("a trusted key is 64 lower-case hexadecimal digits, as public_key() gives them")
    return found


def _private(key: bytes) -> Ed25519PrivateKey:
    if not isinstance(key, bytes) or len(key) != 32:
        raise KeyRefused("a private key is 32 bytes, as new_key() gives them")
    return Ed25519PrivateKey.from_private_bytes(key)
