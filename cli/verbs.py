"""Importing this registers every verb on the command tree, in the order in which `--help` shows them."""

from . import up, projector, sql, history, events, letters, blobs, loop, know, know_lift, know_log, facts, demonstration  # noqa: F401, I001

__all__: list[str] = []
