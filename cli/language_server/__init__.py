"""An editor's view of knowledge modules: diagnostics, hover, definitions, completion, formatting.

`analysis.py` answers questions about one text and knows nothing of the protocol; `server.py` speaks it, by pygls.
"""

from .server import serve

__all__ = ["serve"]
