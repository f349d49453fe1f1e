"""A file by reference: where it is, how large, and its sha256 where that is soon known."""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from morphogen.schemas import ArtifactSaved, plain, sound

_HASH_UP_TO = 1 << 30  # bytes of a file that is hashed; larger ones are recorded without a hash


def saved(
    path: str | os.PathLike[str],
    name: str | None,
    kind: str,
    metadata: Mapping[str, Any],
    unread: Callable[[str, str], object],
) -> ArtifactSaved:
    """Return the event of an artifact; `path` may be a URI. What of a local file cannot be read is told to `unread`."""
    uri, size, digest = str(path), None, None
    if "://" not in uri:
        local = Path(path).absolute()
        uri = local.as_uri()
        try:
            size = local.stat().st_size if local.is_file() else None
            if size is not None and size <= _HASH_UP_TO:
                with local.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            unread(f"artifact {uri}", error.strerror or str(error))
    return ArtifactSaved(
        name=sound(name or Path(str(path)).name),
        uri=sound(uri),
        kind=sound(kind),
        size=size,
        sha256=digest,
        metadata=plain(metadata),
    )
