"""Any name as one subject token or one folder name, and back.

A run may be called "résnet 50/lr=0.1.*"; a NATS subject token may hold no dot, space, `*` or `>`, and a folder
no slash. Letters, digits, `_` and `-` stand for themselves, every other byte of the UTF-8 form becomes `=XX`.
"""

import hashlib
import re

_PLAIN = re.compile(rb"[A-Za-z0-9_-]")
_LONGEST = 120  # leaves room in a 255-byte file name and keeps subjects short


def token(name: str) -> str:
    """Return `name` as a token of `[A-Za-z0-9_=-]`; injective, at most 120 characters, never empty.

    A name whose token would be longer is cut and closed by a hash; such a token cannot be turned back.
    """
    raw = name.encode("utf-8", "surrogatepass")
    safe = "".join(chr(byte) if _PLAIN.match(bytes([byte])) else f"={byte:02X}" for byte in raw) or "="
    if len(safe) <= _LONGEST:
        return safe
    return f"{safe[: _LONGEST - 34]}=~{hashlib.sha256(raw).hexdigest()[:32]}"


def untoken(safe: str) -> str | None:
    """Return the name that `token` was given, or None where the token was cut by a hash or is not one of ours."""
    if safe == "=":
        return ""
    if "=~" in safe or not re.fullmatch(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+", safe):
        return None
    raw = re.sub(rb"=([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), safe.encode())
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
