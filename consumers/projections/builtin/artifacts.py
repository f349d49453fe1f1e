"""`artifacts`: files that runs made, by reference."""

from collections.abc import Iterable
from typing import Any

from ..fold.batch import Entry
from ..projection import Projection


class Artifacts(Projection, name="artifacts", version=1, types=("artifact.saved",)):
    """Where each saved file is, and what it hashes to."""

    tables = {"artifacts": "name VARCHAR, kind VARCHAR, uri VARCHAR, sha256 VARCHAR, size BIGINT, metadata VARIANT"}

    def rows(self, event: Entry) -> Iterable[tuple[Any, ...]]:
        """Yield one row."""
        body = event.body
        size = body.size if body.size is None or abs(body.size) < 2**63 else None
        yield body.name, body.kind, body.uri, body.sha256, size, body.metadata
