"""Versions signed with ed25519, and checked where a project says which keys it trusts. Needs an extra only where it is used."""

import hashlib
from collections.abc import Iterable
from types import ModuleType

import msgspec

from morphogen.kernels.sandbox import canonical
from morphogen.schemas import CrystalRegistered

from .errors import KeyRefused


def statement(made: CrystalRegistered) -> bytes:
    """Return what a signature is over: all that the event says but the signature, its keys in order."""
    said = {name: value for name, value in msgspec.to_builtins(made).items() if name not in {"signed", "key"}}
    return hashlib.sha256(b"morphogen crystal version\n" + canonical(said)).digest()


def signed(made: CrystalRegistered, key: bytes) -> CrystalRegistered:
    """Return the version with a signature by a private key of 32 bytes. Raises KeyRefused."""
    signing = _signing()
    try:
        public, signature = signing.public_key(key), signing.sign(key, statement(made))
    except signing.KeyRefused as error:
        raise KeyRefused(str(error)) from None
    return msgspec.structs.replace(made, signed=signature, key=public)


def trusted_keys(keys: Iterable[str]) -> frozenset[str]:
    """Return public keys as a set. Raises KeyRefused where one is not 64 lower-case hexadecimal digits."""
    signing = _signing()
    try:
        found: frozenset[str] = signing.trusted_keys(keys)
    except signing.KeyRefused as error:
        raise KeyRefused(str(error)) from None
    return found


def distrust(made: CrystalRegistered, trusted: frozenset[str]) -> str | None:
    """Say why a version is not to be trusted by these keys; None where one of them signed it as it stands."""
    if made.signed is None or made.key is None:
        return "it is not signed, and keys are set; sign it, or import it again"
    if made.key not in trusted:
        return f"it is signed by {made.key[:16]}..., which is not among the {len(trusted)} trusted keys"
    if not _signing().signed(made.key, made.signed, statement(made)):
        return "its signature is not over what it says: it was changed after it was signed"
    return None


def _signing() -> ModuleType:
    try:
        from morphogen.kernels.blueprints import signing
    except ImportError as error:  # its own message names the extra
        raise KeyRefused(str(error)) from None
    return signing
