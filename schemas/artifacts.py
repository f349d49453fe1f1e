"""Files that a run made, by reference."""

from typing import Any

import msgspec

from .event import Event


class ArtifactSaved(Event, type="artifact.saved", version=1):
    """A file or folder exists at `uri`; the log holds where it is and what it hashes to, not its bytes."""

    name: str
    uri: str
    kind: str = "file"
    sha256: str | None = None
    size: int | None = None  # bytes
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
