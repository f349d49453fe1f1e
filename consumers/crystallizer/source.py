"""The text of a tool: its hash, and how it is imported without being called."""

import hashlib


def source_sha256(source: str) -> str:
    """Return the hash by which a text is known: `sha256:` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(source.encode('utf-8', 'surrogatepass')).hexdigest()}"


IMPORTED = "imported_without_a_call"
"""The function that `importing` adds."""


def importing(source: str) -> str:
    """Return a text that imports `source` and calls nothing of it; run it by its function `IMPORTED`."""
    return f"{source}\n\n\ndef {IMPORTED}():\n    return None\n"
